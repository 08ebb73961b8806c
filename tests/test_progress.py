from __future__ import annotations

import dataclasses
import io
import os
from pathlib import Path

import pytest
from rich.console import Console

from marginlab import progress
from marginlab.drawing import status_view
from marginlab.progress import Progress
from marginlab.watching import Failure, Snapshot

SEARCH = {"trials": 3, "running": 1, "complete": 1, "pruned": 0, "failed": 1, "epochs": 4, "budget": 8, "best": 0.25}
SHOT = Snapshot(
    study="x",
    step="search",
    searches={"oai/fixed/r0": {**SEARCH, "failures": {1: "the loss was nan"}}},
    confirmed=0,
    confirmations=2,
    epochs_done=4,
    epochs_total=12,
    training=["oai fixed trial 02: epoch 1"],
    failures=[Failure("oai fixed trial 01", "the loss was nan", Path("/w/studies/x/runs/oai/fixed/r0/trial-0001"))],
)


def drawn(shot: Snapshot) -> str:
    console = Console(file=io.StringIO(), width=100)
    console.print(status_view(shot))
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def test_a_snapshot_that_was_sent_is_drawn_like_the_one_that_was_taken() -> None:
    line = Progress("searching", "", 12.5, SHOT).dump()
    assert "\n" not in line
    there = Progress.load(line)
    assert there.shot is not None and drawn(there.shot) == drawn(SHOT)
    assert dataclasses.replace(there, shot=None) == Progress("searching", "", 12.5)


def test_only_a_job_of_ray_publishes_and_beside_its_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert progress.publisher() is None
    monkeypatch.setattr(os, "readlink", lambda path: str(tmp_path / "job-driver-my-study-3.log"))
    publish = progress.publisher()
    assert publish is not None
    for seconds in (1.0, 2.0):
        publish(Progress("preparing", "", seconds, None))
    (path,) = tmp_path.iterdir()
    assert path.name == progress.file_of("my-study-3") == "marginlab-my-study-3.json"
    assert path.read_text().count("\n") == 1 and Progress.load(path.read_text()).seconds == 2.0
    monkeypatch.setattr(os, "readlink", lambda path: "/gone/job-driver-x-1.log")
    gone = progress.publisher()
    assert gone is not None
    gone(Progress("preparing", "", 1.0))  # what cannot be shown stops nothing
