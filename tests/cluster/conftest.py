"""One Ray for all tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from marginlab.cluster.session import session


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="session")
def ray_here(home: Path) -> Iterator[None]:
    """Four logical CPUs, so that a nested trial's two workers leave room to look at what is free."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_DATA_HOME", str(home))
        with session(cpus=4):
            yield
