"""Faults, one a minute, for as long as one likes: nothing leaks, nothing is lost, and every study ends as the one left alone."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from statistics import median

import pytest

from marginlab import study_database
from marginlab.runs import RunFolder
from tests.cluster.driving import story
from tests.hosts.driving import Driver, Ended, Head, trained
from tests.hosts.faults import FAULTS, Fault, Saboteur
from tests.hosts.projected import agree
from tests.hosts.raycluster import wait
from tests.hosts.strikes import CONFIRMATION, REPORT, SEARCH, Strike, rows
from tests.hosts.studies import SOAK_H, lasting
from tests.hosts.vitals import Vitals, census
from tests.postgres import Postgres
from tests.tracking.serving import Server

LENGTH_S = 3600 * SOAK_H  # SOAK_H=2 make soak
pytestmark = [pytest.mark.soak, pytest.mark.timeout(3600 + 2 * LENGTH_S)]
SEED = 20261125
EVERY_S = 60.0
LEFT = 3  # epochs: a fault that strikes later may find nobody at work, and nothing to wait for
LONG_S = min(300.0, LENGTH_S / 4)  # a process that lives so long is judged
MEMORY_MB, FILES, GROUPS = 64, 20, 2  # what there may be more of in the last third than in the first


@dataclass
class Storm:
    """All faults in a drawn order, then all in another one, each at its minute."""

    until: float
    draw: Random = field(default_factory=lambda: Random(SEED))
    deck: list[Fault] = field(default_factory=list)
    at: float = field(default_factory=lambda: time.monotonic() + EVERY_S / 2)  # of the next one
    driver: Driver | None = None  # of the study that it passes over
    passed: list[tuple[Strike, float | None, int]] = field(
        default_factory=list
    )  # seconds to the next epoch, epochs lost

    def over(self, saboteur: Saboteur, driver: Driver) -> Driver:
        """Strike a study until it ends or the time is over; the driver that is left of it."""
        self.driver = driver
        driver.until(lambda: rows(driver.folder))  # what strikes earlier is refused, in a sentence, and not survived
        while self.at < self.until:
            known = len(saboteur.struck)
            try:
                self.driver.until(lambda: time.monotonic() >= self.at, EVERY_S + 1)
                if left(driver.folder) < LEFT:
                    break
                self.deck = self.deck or self.draw.sample(FAULTS, len(FAULTS))
                self.driver = self.deck[0](saboteur, self.driver)
            except Ended:  # before the fault had come to its own: the next study meets it
                del saboteur.struck[known:]
                break
            del self.deck[0]
            self.at = max(self.at + EVERY_S, time.monotonic())
        return self.driver


def test_nothing_leaks_and_nothing_is_lost(head: Head, database: Postgres, tracking: Server, tmp_path: Path) -> None:
    alone = Driver(head, lasting.name, tmp_path / "alone")
    alone.end()
    expected = story(alone.folder)
    head.nothing_reserved()
    before = census(head.cluster)
    storm, ended = Storm(time.monotonic() + LENGTH_S), [0, 0]
    try:
        with Vitals(head, lambda: storm.driver) as vitals:
            for number in range(1000):
                if time.monotonic() > storm.until:
                    break
                workspace, saboteur = head.cluster.disk / f"soak-{number}", Saboteur(SEED + number, database, tracking)
                driver = Driver(head, lasting.name, workspace, database.address("studies"), tracking.url)
                try:
                    driver = storm.over(saboteur, driver)
                    driver.end()
                    on_its_own = saboteur.all_there
                finally:
                    saboteur.clean_up(driver)
                    storm.passed += [(s, s.pause_s(), s.lost()) for s in saboteur.struck]
                assert story(driver.folder) == expected
                agree(tracking, workspace, driver.folder, on_its_own)
                ended = [a + b for a, b in zip(ended, accounted(driver.folder), strict=True)]
                shutil.rmtree(workspace)
        wait(lambda: census(head.cluster) == before, f"the processes of before, {before}")
        head.nothing_reserved()
    finally:
        REPORT.extend([*map(str, told(storm)), *vitals.told(LONG_S)])
        REPORT.append(
            f"{number} studies as the one left alone: {ended[0]} trials and {ended[1]} confirmation runs, all there"
        )
    assert not [s for s, _, lost in storm.passed if lost]
    assert not [life for life in vitals.long(LONG_S) if life.grown(MEMORY_MB, FILES)]
    early, late = vitals.most_groups()
    assert late <= early + GROUPS


def left(folder: Path) -> int:
    """Epochs of confirmation that are to be trained yet."""
    return lasting.confirmation.seeds * (lasting.confirmation.epochs or 0) - trained(folder, "confirmation")


def accounted(folder: Path) -> tuple[int, int]:
    """Every trial has ended in its search and in its run folder alike, and so has every confirmation run; how many there are."""
    with study_database.of(folder).reading() as storage:
        assert storage is not None
        (search,) = storage.get_all_studies()
        trials = storage.get_all_trials(search._study_id)
    for trial in trials:
        (path,) = folder.glob(f"runs/*/*/*/trial-{trial.number:04}-*")
        result = RunFolder.open(path).result()
        assert result is not None and result["state"] == trial.state.name.lower() and result["state"] != "failed"
        assert result["epochs"] == len(trial.intermediate_values)
    assert 0 <= lasting.search.epochs_budget - trained(folder, "trial") < lasting.search.max_epochs
    confirmed = [RunFolder.open(p).result() for p in folder.glob("runs/*/*/*/confirmation-*")]
    assert [r and r["state"] for r in confirmed] == ["complete"] * lasting.confirmation.seeds
    return len(trials), len(confirmed)


def told(storm: Storm) -> list[str]:
    """A line per kind of fault."""
    lines = []
    for name in (f.__name__ for f in FAULTS):
        mine = [x for x in storm.passed if x[0].fault == name]
        phases = ", ".join(f"{sum(s.phase == p for s, *_ in mine)} in {p}" for p in (SEARCH, CONFIRMATION))
        pauses = [pause for _, pause, _ in mine if pause is not None]
        next_one = (
            f"next epoch after {median(pauses):.0f} s, at most {max(pauses):.0f} s" if pauses else "no epoch after it"
        )
        lost = sum(lost for *_, lost in mine)
        lines.append(f"{name:30} {len(mine):3} times ({phases}): {next_one}; {lost} kept epochs lost")
    return lines
