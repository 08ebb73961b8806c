"""A whole study's files under SIGKILL: at the end of every epoch, and at moments in between.

Ray is left out (tests/lives.py), so that the study can be killed often. With Ray: tests/cluster/test_killing.py.
"""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from marginlab.results import Results
from tests.cluster.driving import story, trained
from tests.lives import lives, never

SEED = 20221107  # of the random moments
KILLS = 10


@pytest.fixture(scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    root = tmp_path_factory.mktemp("quiet")
    lives(root, root, "quiet", never)
    began = time.monotonic()
    lives(root, root, "again", never)  # prepared and imported: how long a life takes
    folder = root / "studies" / "quiet"
    return {"root": root, "seconds": time.monotonic() - began, "epochs": trained(folder), "story": story(folder)}


def test_killed_at_the_end_of_every_epoch(quiet: Any) -> None:
    folder = quiet["root"] / "studies" / "epochs"
    for epochs in range(1, quiet["epochs"] + 1):
        assert lives(quiet["root"], quiet["root"], "epochs", lambda: trained(folder) >= epochs)  # noqa: B023
    assert not lives(quiet["root"], quiet["root"], "epochs", never)
    assert story(folder) == quiet["story"]


def test_killed_in_the_middle_of_its_writing(quiet: Any) -> None:
    folder = quiet["root"] / "studies" / "writing"

    def half_written() -> list[Path]:
        return list(folder.glob("runs/**/.*.safetensors"))

    while lives(quiet["root"], quiet["root"], "writing", lambda: bool(half_written())) and not half_written():
        pass  # it was whole by the time of the kill
    assert half_written()
    assert not lives(quiet["root"], quiet["root"], "writing", never)
    assert story(folder) == quiet["story"]


@pytest.mark.kills
def test_killed_at_random_moments(quiet: Any) -> None:
    rng, killed, studied = random.Random(SEED), 0, 0
    while killed < KILLS:
        name = f"random-{studied}"
        moment = time.monotonic() + rng.uniform(0.02, 0.5) * quiet["seconds"]
        if lives(quiet["root"], quiet["root"], name, lambda: time.monotonic() > moment):  # noqa: B023
            killed += 1
        else:  # it came to its end; the next kill is another study's
            assert story(quiet["root"] / "studies" / name) == quiet["story"]
            studied += 1
    lives(quiet["root"], quiet["root"], name, never)
    assert story(quiet["root"] / "studies" / name) == quiet["story"]


@pytest.mark.kills
def test_killed_while_it_trains_defaults_and_incumbents(quiet: Any) -> None:
    root = quiet["root"]
    kinds = ("default", "incumbent")
    lives(root, root, "undisturbed", never, "again")
    whole = root / "studies" / "undisturbed"
    runs = Results.open(whole).runs().filter(pl.col("kind") != "trial")
    assert runs["state"].unique().to_list() == ["complete"] and runs["current"].all()
    expected = Results.open(whole).fresh.counts()
    assert {kind: runs.filter(kind=kind).height for kind in expected} == expected and expected["incumbent"] > 0
    for kind, folder in runs.select("kind", "folder").iter_rows():
        assert (whole / folder / "embeddings" / "test.parquet").exists() == (kind != "incumbent")
    folder = root / "studies" / "disturbed"
    done = 0
    while lives(root, root, "disturbed", lambda: sum(trained(folder, kind) for kind in kinds) > done, "again"):  # noqa: B023
        done = sum(trained(folder, kind) for kind in kinds)
    assert done == sum(trained(whole, kind) for kind in kinds) and story(folder) == story(whole)


def test_killed_while_it_prepares(quiet: Any, tmp_path: Path) -> None:
    rng = random.Random(SEED)
    for _ in range(KILLS):
        moment = time.monotonic() + rng.uniform(0.0, 0.6)
        if not lives(tmp_path, tmp_path, "quiet", lambda: time.monotonic() > moment):  # noqa: B023
            break
    lives(tmp_path, tmp_path, "quiet", never)
    assert story(tmp_path / "studies" / "quiet") == quiet["story"]
    assert not [p for p in (tmp_path / "data").iterdir() if "partial" in p.name]


def test_trials_that_raise_give_nan_or_run_out_of_memory_are_failed_with_their_reason(quiet: Any) -> None:
    lives(quiet["root"], quiet["root"], "faulty", never, "faulty")
    search = Results.open(quiet["root"] / "studies" / "faulty").searches["oai/faulty/r0"]
    assert (search["complete"], search["failed"], search["epochs"]) == (1, 3, 4)
    raised, nan, memory = search["failures"].values()
    assert raised == "ValueError: a fault of the loss"
    assert nan.startswith("The loss was nan in epoch 1: try a lower learning rate")
    assert "RuntimeError" in memory and "allocate" in memory
