"""Workers that stand still, and a cable that is pulled: the group is ended with a sentence that names the rank, and tried again."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from marginlab import faults
from tests.cluster.driving import story
from tests.hosts.driving import Driver, Head
from tests.hosts.faults import WORKER, Saboteur

SEED = 20261125


@pytest.fixture
def stopped() -> Iterator[list[int]]:
    """Processes that must not outlive the test, stopped as they are."""
    pids: list[int] = []
    yield pids
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def test_a_stopped_rank_is_named_and_its_group_tried_again(
    head: Head, undisturbed: Any, tmp_path: Path, stopped: list[int]
) -> None:
    saboteur = Saboteur(SEED)
    driver = Driver(head, "together", tmp_path / "stopped")
    for count, kind in enumerate(("trial", "confirmation"), 1):
        saboteur.after_some_epochs(driver, kind, 1, 3)
        host = driver.until(lambda: list(head.cluster.pids(WORKER).values()))[0]
        stopped.append(saboteur.kill(driver, WORKER, signal.SIGSTOP))
        driver.until(lambda: len(faults.read(driver.folder)) >= count)  # noqa: B023
        found = faults.read(driver.folder)[-1].what
        assert found.startswith("Rank ") and host.namespace in found and "epoch" in found
    driver.end()
    assert story(driver.folder) == undisturbed["story"]
    head.nothing_reserved()
    assert not [p for p in stopped if Path(f"/proc/{p}").exists()]
