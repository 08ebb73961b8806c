"""One Ray for all tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from marginlab.cluster.session import session
from tests.cluster.driving import story, trained
from tests.lives import lives, never


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
def quiet(home: Path) -> dict[str, Any]:
    """The study ``killed``, left alone and without Ray: the same numbers. Its epochs and its story."""
    lives(home / "quiet", home, "killed", never)
    folder = home / "quiet" / "studies" / "killed"
    return {"epochs": trained(folder), "story": story(folder)}
