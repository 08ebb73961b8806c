"""Hosts that are lost: the study ends with every trial, and nothing stays reserved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.cluster.driving import story, trained
from tests.hosts.driving import Driver, Head


def test_left_alone_it_reserves_nothing_afterwards(head: Head, undisturbed: Any) -> None:
    found = head.reserved()
    assert not found["groups"]
    assert found["free"] == found["cpus"] == 4


def test_a_host_is_lost_while_it_trains_and_comes_back(head: Head, undisturbed: Any, tmp_path: Path) -> None:
    driver = Driver(head, "together", tmp_path / "lost")
    driver.until(lambda: trained(driver.folder, "trial") >= 1)
    (lost, *_) = driver.until(lambda: list(head.cluster.pids("ray::RayTrainWorker").values()))
    lost.kill()
    driver.until(lambda: trained(driver.folder, "trial") >= 3)
    head.cluster.raise_worker(lost)
    driver.end()
    assert story(driver.folder) == undisturbed["story"]
    found = head.reserved()
    assert not found["groups"]
    assert found["free"] == found["cpus"] == 4
