"""Hosts that are lost, while they train and while their workers start: every trial ends, and nothing stays reserved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.cluster.driving import story
from tests.hosts.driving import Driver, Head
from tests.hosts.faults import WORKER, Saboteur

SEED = 20261124


def test_left_alone_it_reserves_nothing_afterwards(head: Head, undisturbed: Any) -> None:
    head.nothing_reserved()


def test_hosts_are_lost_and_come_back(head: Head, undisturbed: Any, tmp_path: Path) -> None:
    saboteur = Saboteur(SEED)
    driver = Driver(head, "together", tmp_path / "lost")
    for kind in ("trial", "confirmation"):
        saboteur.after_some_epochs(driver, kind, 1, 3)
        (lost, *_) = driver.until(lambda: list(head.cluster.pids(WORKER).values()))
        lost.kill()
        # Its workers start on the host that is left, which is lost too, and both come back.
        starting = saboteur.while_workers_start(driver)
        starting.kill()
        head.cluster.raise_worker(lost)
        head.cluster.raise_worker(starting)
    driver.end()
    assert story(driver.folder) == undisturbed["story"]
    head.nothing_reserved()
