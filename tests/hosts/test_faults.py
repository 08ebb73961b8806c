"""A study through everything that can happen to it, at moments that are drawn: it ends as the one that was left alone."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.driving import story, trained
from tests.hosts.driving import Driver, Head
from tests.hosts.faults import FAULTS, Saboteur
from tests.hosts.raycluster import wait
from tests.postgres import Postgres, serving

SEED = 20261124
ROUNDS = int(os.environ.get("ROUNDS", "1"))  # `make test-cluster ROUNDS=10`: other moments, another order
SOON_ENOUGH = 3 / 4  # of the study's epochs: by then the last fault has struck


@pytest.fixture(scope="module")
def database(head: Head) -> Iterator[Postgres]:
    """A PostgreSQL that all hosts reach."""
    with serving(head.cluster.outside) as made:
        made.create("studies")
        yield made


def test_left_alone_it_reserves_nothing_afterwards(head: Head, undisturbed: Any) -> None:
    head.nothing_reserved()


@pytest.mark.parametrize("number", range(ROUNDS))
def test_a_study_goes_through_all_faults(
    head: Head, database: Postgres, undisturbed: Any, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    address = f"postgresql://marginlab:{database.password}@{database.host}:{database.port}/studies"
    monkeypatch.setenv("PGPASSWORD", database.password)
    saboteur = Saboteur(SEED + number, database)
    epochs = range(1, int(SOON_ENOUGH * undisturbed["epochs"]) + 1)
    moments = sorted(saboteur.random.sample(epochs, len(FAULTS)))
    driver = Driver(head, "together", head.cluster.disk / f"faults-{number}", address)
    try:
        for epoch, fault in zip(moments, saboteur.random.sample(FAULTS, len(FAULTS)), strict=True):
            driver.until(lambda: trained(driver.folder) >= epoch)  # noqa: B023
            print(f"after epoch {trained(driver.folder)}: {fault.__name__}")
            driver = fault(saboteur, driver)
        driver.end()
    finally:
        saboteur.clean_up(driver)
    assert story(driver.folder) == undisturbed["story"]
    assert sum(saboteur.struck.values()) == len(FAULTS)
    head.nothing_reserved()
    wait(lambda: not [p for p in saboteur.stopped if Path(f"/proc/{p}").exists()], "the end of the stopped processes")
