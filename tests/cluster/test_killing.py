"""Killed at every epoch's end and at random moments, moved, stopped: the study ends as one that was left alone."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.driving import Driver, step, story, trained

SEED = 20221107  # of the random moments
MOMENTS = 5


@pytest.mark.kills
def test_killed_at_the_end_of_every_epoch_and_moved_on_the_way(ray_here: None, quiet: Any, home: Path) -> None:
    workspace = home / "epochs"
    for epochs in range(1, quiet["epochs"] + 1):
        driver = Driver("killed", workspace, home)
        assert driver.until(lambda: trained(driver.folder) >= epochs)  # noqa: B023
        driver.kill()
        if epochs == 3:
            workspace = workspace.rename(home / "moved")
    for at in ("tracking", "report"):
        driver = Driver("killed", workspace, home)
        assert driver.until(lambda: step(driver.folder) == at)  # noqa: B023
        driver.kill()
    last = Driver("killed", workspace, home)
    last.end()
    assert story(last.folder) == quiet["story"]


@pytest.mark.kills
def test_killed_at_random_moments(ray_here: None, quiet: Any, home: Path) -> None:
    rng = random.Random(SEED)
    workspace = home / "random"
    for _ in range(MOMENTS):
        driver = Driver("killed", workspace, home)
        moment = time.monotonic() + rng.uniform(5.0, 40.0)
        if not driver.until(lambda: time.monotonic() > moment):  # noqa: B023
            workspace = workspace.rename(home / f"random-{rng.random()}")  # it came to its end: the next one is another
            continue
        driver.kill()
    driver = Driver("killed", workspace, home)
    driver.end()
    assert story(driver.folder) == quiet["story"]


@pytest.mark.kills
def test_a_lost_trial_registrar_controller_or_worker_costs_its_epoch_alone(
    ray_here: None, quiet: Any, home: Path
) -> None:
    driver = Driver("killed", home / "lost", home)
    for kind, epochs, title in (
        ("trial", 1, "ray::ImplicitFunc"),
        ("trial", 3, "ray::Registrar"),
        ("confirmation", 0, "ray::TrainController"),  # as soon as there is one
        ("confirmation", 1, "ray::RayTrainWorker"),
    ):
        assert driver.until(lambda: trained(driver.folder, kind) >= epochs and driver.workers(title))  # noqa: B023
        os.kill(
            max(driver.workers(title)), signal.SIGKILL
        )  # what a killed controller had begun may be there for a moment
    driver.end()
    assert story(driver.folder) == quiet["story"]
