"""What a tracking server has of a study's runs, to be held against what their folders have."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from marginlab.files import read_json
from marginlab.runs import RunFolder
from marginlab.tracking import Tracker, describe
from tests.tracking.serving import Server


def agree(tracking: Server, workspace: Path, study: Path, on_its_own: bool) -> None:
    """The server has every point once, and in order.

    Args:
        on_its_own: whether it was there when the study ended; if not, the study said what to do, and that is done here.
    """
    if not on_its_own:
        Tracker(workspace, study, tracking.url).sync(at_work=False)
    assert in_mlflow(tracking, study) == in_folders(study)


def in_mlflow(tracking: Server, study: Path) -> list[tuple[Any, ...]]:
    """Every point that the server has of the epochs of a study's runs, by run and name in the order of its arrival."""
    query = (
        "SELECT f.value, m.key, m.step, m.timestamp, m.value FROM metrics m JOIN runs r USING (run_uuid) "
        "JOIN tags f ON f.run_uuid = r.run_uuid AND f.key = 'marginlab.run_folder' "
        "JOIN tags p ON p.run_uuid = r.run_uuid AND p.key = 'marginlab.projection' AND p.value = ? "
        "WHERE r.lifecycle_stage = 'active' ORDER BY f.value, m.key, m.rowid"
    )
    with closing(sqlite3.connect(tracking.folder / "mlflow.db")) as connection:
        points = connection.execute(query, (read_json(study / "tracking.json")["id"],)).fetchall()
    return [p for p in points if not p[1].startswith(("best/", "final/", "test/"))]


def in_folders(study: Path) -> list[tuple[Any, ...]]:
    """What it should have."""
    runs = [RunFolder.open(path.parent) for path in study.glob("runs/**/run.json")]
    points = [
        (str(run.path.relative_to(study)), key, row["epoch"], describe.stamp(row["time"]), value)
        for run in runs
        for row in run.epochs()
        for key, value in describe.points(row).items()
    ]
    return sorted(points)
