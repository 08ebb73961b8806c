"""Tests run in two processes (``make test``): one thread each, and what shares an expensive fixture stays together."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported

TOGETHER = ("cluster", "ddp", "tracking")  # folders whose tests share one Ray, one pair of ranks, one MLflow


@pytest.hookimpl(tryfirst=True)  # before xdist looks for the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        folder = Path(item.path).parent.name
        if folder in TOGETHER:
            item.add_marker(pytest.mark.xdist_group(folder))
