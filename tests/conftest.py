"""Tests run in two processes (``make test``): one thread each, and what shares an expensive fixture stays together."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from xdist.scheduler import LoadScopeScheduling

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported

TOGETHER = ("cluster", "ddp", "tracking")  # folders whose tests share one Ray, one pair of ranks, one MLflow


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    from xdist.scheduler import LoadScopeScheduling

    class ByFixture(LoadScopeScheduling):
        """Deals whole files, and whole folders of ``TOGETHER``, in their order: the cluster's tests, the longest, begin first."""

        def _split_scope(self, nodeid: str) -> str:
            path = nodeid.split("::")[0].split("/")
            return path[1] if path[1] in TOGETHER else path[-1]

    config.option.loadscopereorder = False
    return ByFixture(config, log)
