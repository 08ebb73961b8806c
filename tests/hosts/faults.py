"""Faults that tests inject, each counted."""

from __future__ import annotations

import os
import random
import signal
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field

from tests.cluster.driving import trained
from tests.hosts.driving import Driver
from tests.hosts.netns import Host

WORKER, TRIAL, CONTROLLER, REGISTRAR = (
    "ray::RayTrainWorker",
    "ray::ImplicitFunc",
    "ray::TrainController",
    "ray::Registrar",
)


@dataclass
class Saboteur:
    """Strikes a study at seeded moments: after so many epochs of a kind of run, or while workers start."""

    seed: int
    struck: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)

    def after_some_epochs(self, driver: Driver, kind: str, least: int, most: int) -> None:
        """Wait until the runs of this kind have some number of epochs more."""
        wanted = trained(driver.folder, kind) + self.random.randint(least, most)
        driver.until(lambda: trained(driver.folder, kind) >= wanted)

    def while_workers_start(self, driver: Driver) -> Host:
        """Wait until there are workers who were not there before; the host of one."""
        before = set(driver.cluster.pids(WORKER))
        new = driver.until(lambda: {p: h for p, h in driver.cluster.pids(WORKER).items() if p not in before})
        return next(iter(new.values()))

    def kill(self, driver: Driver, title: str, number: int = signal.SIGKILL) -> int:
        """A signal to one of the processes with this title; its id."""
        victims = driver.until(lambda: driver.cluster.pids(title))
        victim = self.random.choice(sorted(victims))
        with suppress(ProcessLookupError):
            os.kill(victim, number)
            self.struck[f"{signal.Signals(number).name} {title}"] += 1
        return victim
