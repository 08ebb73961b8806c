"""A study through everything that can happen to it, at moments that are drawn: it ends as the one that was left alone."""

from __future__ import annotations

import os
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests.cluster.driving import story
from tests.hosts.driving import Driver, Head, trained
from tests.hosts.faults import EARLY, FAULTS, LATE, Fault, Saboteur, database_away
from tests.hosts.projected import agree
from tests.hosts.raycluster import wait
from tests.hosts.strikes import CONFIRMATION, REPORT, SEARCH
from tests.postgres import Postgres
from tests.tracking.serving import Server

SEED = 20261124
# `make test-cluster ROUNDS=10`: other moments, another order; and with two rounds every fault strikes in both phases.
ROUNDS = int(os.environ.get("ROUNDS", "1"))
FROM_END = {
    SEARCH: 1,
    CONFIRMATION: 3,
}  # epochs of a phase after which none strikes: the study is to be there while it does


def drawn(number: int, epochs: dict[str, int]) -> list[tuple[str, int, Fault]]:
    """When each fault strikes in a round: the phase, how many epochs of it are trained by then, the fault.

    In every second round faults strike in the phase that they spared in the one before. What lasts (``EARLY``) comes first in its
    phase, so that others strike meanwhile, and what lets epochs pass (``LATE``) last.
    """
    order = Random(SEED + number // 2).sample(FAULTS, len(FAULTS))
    halves = order[: len(order) // 2], order[len(order) // 2 :]
    found = []
    for phase, half in zip((SEARCH, CONFIRMATION), halves[:: 1 - number % 2 * 2], strict=True):
        draw = Random(f"{SEED}/{number}/{phase}")
        half = sorted(
            draw.sample(half, len(half)), key=lambda f: EARLY.index(f) if f in EARLY else len(EARLY) + (f in LATE)
        )
        moments = sorted(draw.choices(range(1, epochs[phase] - FROM_END[phase] + 1), k=len(half)))
        if database_away in half and (at := half.index(database_away) + 1) < len(half):
            moments[at] = moments[at - 1]  # a search waits for it: what comes next strikes at once
        found += [(phase, epoch, fault) for epoch, fault in zip(moments, half, strict=True)]
    return found


def test_left_alone_it_reserves_nothing_afterwards(head: Head, undisturbed: Any) -> None:
    head.nothing_reserved()


@pytest.mark.parametrize("number", range(ROUNDS))
def test_a_study_goes_through_all_faults(
    head: Head, database: Postgres, tracking: Server, undisturbed: Any, number: int
) -> None:
    saboteur = Saboteur(SEED + number, database, tracking)
    workspace = head.cluster.disk / f"faults-{number}"
    driver = Driver(head, "together", workspace, database.address("studies"), tracking.url)
    plan = drawn(number, undisturbed["epochs"])
    try:
        for phase, epoch, fault in plan:
            kind = "trial" if phase == SEARCH else "confirmation"
            driver.until(lambda: trained(driver.folder, kind) >= epoch)  # noqa: B023
            print(f"{phase}, after epoch {trained(driver.folder, kind)}: {fault.__name__}")
            driver = fault(saboteur, driver)
        driver.end()
        on_its_own = saboteur.all_there
    finally:
        saboteur.clean_up(driver)
        REPORT.extend([f"round {number + 1}:", *map(str, saboteur.struck)])
    assert story(driver.folder) == undisturbed["story"]
    assert [(s.phase, s.fault) for s in saboteur.struck] == [(phase, fault.__name__) for phase, _, fault in plan]
    assert [s.lost() for s in saboteur.struck] == [0] * len(FAULTS)
    saboteur.check_said(driver)
    agree(tracking, workspace, driver.folder, on_its_own)
    head.nothing_reserved()
    wait(lambda: not [p for p in saboteur.stopped if Path(f"/proc/{p}").exists()], "the end of the stopped processes")
