"""Faults that tests inject, each counted. Every one takes a driver and gives back the one that goes on."""

from __future__ import annotations

import os
import random
import signal
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from marginlab import faults
from tests.hosts.driving import Driver
from tests.hosts.netns import Host
from tests.postgres import Postgres

WORKER, TRIAL, CONTROLLER, REGISTRAR = (
    "ray::RayTrainWorker",
    "ray::ImplicitFunc",
    "ray::TrainController",
    "ray::Registrar",
)


@dataclass
class Saboteur:
    seed: int
    database: Postgres
    struck: Counter[str] = field(default_factory=Counter)
    stopped: list[int] = field(default_factory=list)  # processes that must not outlive the study

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)

    def kill(self, driver: Driver, titles: tuple[str, ...], number: int = signal.SIGKILL) -> int:
        """A signal to one of the processes with one of these titles; its id."""
        while True:
            victims = driver.until(lambda: {p for title in titles for p in driver.cluster.pids(title)})
            victim: int = self.random.choice(sorted(victims))
            with suppress(ProcessLookupError):  # it has just ended
                os.kill(victim, number)
                return victim

    def clean_up(self, driver: Driver) -> None:
        """Whatever became of the study."""
        driver.kill()
        for pid in self.stopped:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        (driver.cluster.disk / BALLAST).unlink(missing_ok=True)


Fault = Callable[[Saboteur, Driver], Driver]
FAULTS: list[Fault] = []


def _fault(strike: Callable[[Saboteur, Driver], Driver | None]) -> Fault:
    def struck(saboteur: Saboteur, driver: Driver) -> Driver:
        after = strike(saboteur, driver) or driver
        saboteur.struck[strike.__name__] += 1
        return after

    struck.__name__ = strike.__name__
    FAULTS.append(struck)
    return struck


@_fault
def worker_killed(saboteur: Saboteur, driver: Driver) -> None:
    saboteur.kill(driver, (WORKER,))


@_fault
def trial_or_controller_killed(saboteur: Saboteur, driver: Driver) -> None:
    saboteur.kill(driver, (TRIAL, CONTROLLER))


@_fault
def registrar_killed(saboteur: Saboteur, driver: Driver) -> None:
    """Once the search is over there is none, and a killed worker takes its place."""
    saboteur.kill(driver, (REGISTRAR,) if driver.cluster.pids(REGISTRAR) else (WORKER,))


@_fault
def driver_killed(saboteur: Saboteur, driver: Driver) -> Driver:
    """Outright; the same command goes on."""
    driver.kill()
    return driver.again()


@_fault
def host_lost(saboteur: Saboteur, driver: Driver) -> None:
    """While it trains; it comes back empty."""
    _lose(driver, _host_of_a_worker(driver))


@_fault
def host_lost_while_workers_start(saboteur: Saboteur, driver: Driver) -> None:
    """A worker is killed for it, so that others start."""
    before = set(driver.until(lambda: driver.cluster.pids(WORKER)))
    saboteur.kill(driver, (WORKER,))
    new = driver.until(lambda: {p: h for p, h in driver.cluster.pids(WORKER).items() if p not in before})
    _lose(driver, next(iter(new.values())))


@_fault
def worker_stopped(saboteur: Saboteur, driver: Driver) -> None:
    """It stands still, and the others of its group wait for it; the study says which rank it was, and where."""
    known = len(faults.read(driver.folder))
    host = _host_of_a_worker(driver)
    saboteur.stopped.append(saboteur.kill(driver, (WORKER,), signal.SIGSTOP))
    driver.until(lambda: len(faults.read(driver.folder)) > known)
    said = [f.what for f in faults.read(driver.folder)[known:]]
    assert any(s.startswith("Rank ") and host.namespace in s and "was not heard from for" in s for s in said), said


@_fault
def disk_full(saboteur: Saboteur, driver: Driver) -> None:
    """The disk that all hosts share: the study waits, and says so."""
    said = driver.log.read_text().count("cannot be written")
    ballast = _fill(driver.cluster.disk)
    driver.until(lambda: driver.log.read_text().count("cannot be written") > said)
    ballast.unlink()


@_fault
def database_killed(saboteur: Saboteur, driver: Driver) -> None:
    """The study database; it is started again."""
    saboteur.database.stop(signal.SIGKILL)
    saboteur.database.start()


BALLAST = "ballast"


def _fill(disk: Path) -> Path:
    """A file that leaves not one byte."""
    ballast = disk / BALLAST
    with ballast.open("wb", buffering=0) as f:
        free = os.statvfs(disk)
        os.posix_fallocate(f.fileno(), 0, max(free.f_bavail * free.f_bsize - (1 << 20), 1))
        f.seek(0, os.SEEK_END)
        size = 1 << 16
        while size:
            try:
                f.write(bytes(size))
            except OSError:
                size //= 2
    return ballast


def _host_of_a_worker(driver: Driver) -> Host:
    """Both workers of a group are on one."""
    host: Host = driver.until(lambda: list(driver.cluster.pids(WORKER).values()))[0]
    return host


def _lose(driver: Driver, host: Host) -> None:
    host.kill()
    driver.cluster.raise_worker(host)
