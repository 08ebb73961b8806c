"""Faults that tests inject, each noted. Every one takes a driver and gives back the one that goes on."""

from __future__ import annotations

import os
import random
import re
import signal
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from marginlab import faults
from tests.hosts.driving import Driver
from tests.hosts.netns import Host
from tests.hosts.raycluster import RAYLET, wait
from tests.hosts.strikes import Strike, rows
from tests.hosts.studies import word
from tests.postgres import Postgres
from tests.tracking.serving import Server

WORKER, TRIAL, CONTROLLER, REGISTRAR = (
    "ray::RayTrainWorker",
    "ray::ImplicitFunc",
    "ray::TrainController",
    "ray::Registrar",
)
READ_ONLY_S = 10.0  # after a kill: time enough for a new process to meet the disk
DATABASE_AWAY_S = 45.0
TRACKING_AWAY_S = 120.0
GIVEN_UP_S = 30.0  # by then Ray has given up a host that it does not hear (raycluster.SOON)


@dataclass
class Saboteur:
    seed: int
    database: Postgres
    tracking: Server
    struck: list[Strike] = field(default_factory=list)
    stopped: list[int] = field(default_factory=list)  # processes that must not outlive the study
    to_be_said: list[str] = field(default_factory=list)  # by the study, before it ends
    coming_back: dict[object, Future[None]] = field(default_factory=dict)  # servers that were taken away

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self._pool = ThreadPoolExecutor(2)

    def kill(self, driver: Driver, titles: tuple[str, ...], number: int = signal.SIGKILL) -> int:
        """A signal to one of the processes with one of these titles; its id."""
        while True:
            victims = driver.until(lambda: {p for title in titles for p in driver.cluster.pids(title)})
            victim: int = self.random.choice(sorted(victims))
            with suppress(ProcessLookupError):  # it has just ended
                os.kill(victim, number)
                return victim

    def take_away(self, server: Postgres | Server, seconds: float) -> None:
        """Returns at once."""

        def bring_back() -> None:
            time.sleep(seconds)
            server.start()

        self.wait_for(server)
        server.stop()
        self.coming_back[server] = self._pool.submit(bring_back)

    @property
    def all_there(self) -> bool:
        """Whether every server that was taken away is back."""
        return all(f.done() for f in self.coming_back.values())

    def wait_for(self, *servers: Postgres | Server) -> None:
        for server in servers:
            if server in self.coming_back:
                self.coming_back[server].result()

    def check_said(self, driver: Driver) -> None:
        said = driver.log.read_text()
        assert not (missing := [s for s in self.to_be_said if s not in said]), f"{missing} not in {said[-4000:]}"

    def clean_up(self, driver: Driver) -> None:
        """Whatever became of the study."""
        driver.kill()
        self.wait_for(self.database, self.tracking)
        for pid in self.stopped:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        driver.cluster.unprotect()
        (driver.cluster.disk / BALLAST).unlink(missing_ok=True)
        for rank in RANKS:
            word(driver.cluster.home, rank).unlink(missing_ok=True)


Fault = Callable[[Saboteur, Driver], Driver]
FAULTS: list[Fault] = []
RANKS = (0, 1)


def _fault(strike: Callable[[Saboteur, Driver], Driver | None]) -> Fault:
    def struck(saboteur: Saboteur, driver: Driver) -> Driver:
        saboteur.struck.append(Strike.now(strike.__name__, driver.folder))
        return strike(saboteur, driver) or driver

    struck.__name__ = strike.__name__
    FAULTS.append(struck)
    return struck


# -- processes and hosts ------------------------------------------------------------------------------------------------


@_fault
def worker_killed(saboteur: Saboteur, driver: Driver) -> None:
    saboteur.kill(driver, (WORKER,))


@_fault
def trial_or_controller_killed(saboteur: Saboteur, driver: Driver) -> None:
    """In confirmation there is no trial, and the driver itself begins the group anew."""
    saboteur.kill(driver, (TRIAL, CONTROLLER))


@_fault
def registrar_killed(saboteur: Saboteur, driver: Driver) -> None:
    """It is there for as long as the study, also in confirmation, which does not ask it."""
    saboteur.kill(driver, (REGISTRAR,))


@_fault
def driver_killed(saboteur: Saboteur, driver: Driver) -> Driver:
    """Outright; the same command goes on, as soon as all servers are there: it would refuse to begin without one."""
    driver.kill()
    saboteur.wait_for(saboteur.database, saboteur.tracking)
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
def host_cut_off(saboteur: Saboteur, driver: Driver) -> None:
    """Its workers go on, and neither the others nor the disk hear of them; when it is back the study is at work on another host,
    and Ray ends what it has given up."""
    host = _host_of_a_worker(driver)
    words = f"address: {host.address} and node name: {host.address} has been marked dead"
    said, until = driver.log.read_text().count(words), time.monotonic() + GIVEN_UP_S
    driver.cluster.protect(host)
    host.unplug()
    try:  # not until others are at work: they may be so for another reason, and Ray would not have missed the host
        while driver.log.read_text().count(words) == said and time.monotonic() < until:
            time.sleep(0.2)
    finally:
        host.plug()
        wait(lambda: not driver.cluster.pids(RAYLET, [host]), "the end of the raylet that was given up")
        _lose(driver, host)


# -- ranks that others wait for -----------------------------------------------------------------------------------------


@_fault
def worker_stopped(saboteur: Saboteur, driver: Driver) -> None:
    """It stands still, and the others of its group wait for it; the study says so and, where they trained, which rank it was."""
    _until_it_trains(driver)
    since, host = time.time(), _host_of_a_worker(driver)
    saboteur.stopped.append(saboteur.kill(driver, (WORKER,), signal.SIGSTOP))
    silent = rf"Rank \d on {host.namespace}\b.* was not heard from for \d+ s: its process is stopped"
    # Another group may start just then, whose ranks do not watch one another yet.
    _until_noted(driver, since, rf"{silent}|A worker group did not begin within \d+ s: a process is stopped")


@_fault
def rank_hangs(saboteur: Saboteur, driver: Driver) -> None:
    """In its own code, its process as lively as ever, while the others wait in a collective; the study says where it was."""
    since, rank = time.time(), saboteur.random.choice(RANKS)
    heard = word(driver.cluster.home, rank)
    heard.touch()
    driver.until(lambda: not heard.exists())
    last = rf"Rank {rank} on ml\d+w\d, last in epoch \d+, step \d+ of \d+, kept the others waiting for \d+ s\."
    _until_noted(driver, since, last)


# -- disks and servers --------------------------------------------------------------------------------------------------


@_fault
def disk_full(saboteur: Saboteur, driver: Driver) -> None:
    """The disk that all hosts share: the study waits, and says so."""
    ballast = _fill(driver.cluster.disk)
    try:
        _until_said(driver, "cannot be written (No space left on device)")
    finally:
        ballast.unlink()


@_fault
def disk_read_only(saboteur: Saboteur, driver: Driver) -> None:
    """The same disk: the study waits, and says so; meanwhile a trial, or its group, is begun anew, and waits too."""
    driver.cluster.protect()
    try:
        _until_said(driver, "cannot be written (Read-only file system)")
        saboteur.kill(driver, (TRIAL, CONTROLLER))
        time.sleep(READ_ONLY_S)
    finally:
        driver.cluster.unprotect()


@_fault
def database_killed(saboteur: Saboteur, driver: Driver) -> None:
    """The study database; it is started again at once."""
    saboteur.wait_for(saboteur.database)
    saboteur.database.stop(signal.SIGKILL)
    saboteur.database.start()


@_fault
def database_away(saboteur: Saboteur, driver: Driver) -> None:
    """For most of a minute, whatever else strikes meanwhile: a search waits for it, and says so."""
    saboteur.take_away(saboteur.database, DATABASE_AWAY_S)
    saboteur.to_be_said.append("does not answer (Connection refused). The study waits")


@_fault
def tracking_away(saboteur: Saboteur, driver: Driver) -> None:
    """MLflow, for two minutes, whatever else strikes meanwhile: the study says so and trains on."""
    saboteur.take_away(saboteur.tracking, TRACKING_AWAY_S)
    saboteur.to_be_said.append(f"MLflow at {saboteur.tracking.url}")


# What lasts, and what must not strike while it does; and what lets the study train on before it is over.
EARLY: list[Fault] = [database_killed, database_away, tracking_away]
LATE: list[Fault] = [host_cut_off]
BALLAST = "ballast"


def _until_said(driver: Driver, words: str) -> None:
    """Once more than before."""
    said = driver.log.read_text().count(words)
    driver.until(lambda: driver.log.read_text().count(words) > said)


def _until_it_trains(driver: Driver) -> None:
    """Another epoch: ranks watch one another from when their group is there, and not while it starts."""
    known = max(rows(driver.folder).values(), default=0.0)
    driver.until(lambda: max(rows(driver.folder).values(), default=0.0) > known)


def _until_noted(driver: Driver, since: float, pattern: str) -> None:
    """Among the faults of the study."""
    driver.until(lambda: [f for f in faults.read(driver.folder) if f.time >= since and re.match(pattern, f.what)])


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
