"""One Ray for all tests of this folder."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from marginlab.cluster.session import session
from tests.cluster.driving import Driver, story, trained


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="session")
def ray_here(home: Path) -> Iterator[None]:
    """Three logical CPUs, so that a nested trial's two workers leave room to look at what is free."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_DATA_HOME", str(home))
        with session(cpus=3):
            yield


@pytest.fixture(scope="session")
def quiet(ray_here: None, home: Path) -> dict[str, Any]:
    """The study ``killed``, left alone: how long it took, its epochs and its story."""
    began = time.monotonic()
    driver = Driver("killed", home / "quiet", home)
    driver.end()
    return {"seconds": time.monotonic() - began, "epochs": trained(driver.folder), "story": story(driver.folder)}
