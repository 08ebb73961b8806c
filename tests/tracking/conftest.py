"""An empty database, a workspace over a copy of it, and a packed dataset (fakes.py)."""

from __future__ import annotations

from pathlib import Path

import pytest

from marginlab.tracking import connect
from tests.tracking.fakes import Place, new_packed, new_place


@pytest.fixture(scope="session")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty database with its tables, made once: that takes seconds."""
    folder = tmp_path_factory.mktemp("mlflow")
    connect(folder)
    return folder / "mlflow.db"


@pytest.fixture
def place(tmp_path: Path, database: Path) -> Place:
    return new_place(tmp_path / "work space", database)


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    return new_packed(tmp_path / "packed")
