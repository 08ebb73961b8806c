"""A workspace with a study whose run folders are written by Recorder, as training writes them, without training."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np
import polars as pl
import torch

from marginlab.augment import Augment
from marginlab.data.manifest import SCHEMA
from marginlab.data.subset import Subset
from marginlab.files import write_json
from marginlab.margins import AutoMargin, FixedMargin, Margin
from marginlab.networks import SmallNetwork, build_seeded
from marginlab.plan import Plan, SearchKey, Task
from marginlab.runs import Recorder, RunFolder, write_embeddings
from marginlab.study import Arm, Confirmation, Dataset, Search, Study
from marginlab.tracking import connect
from marginlab.training import State, Training
from marginlab.values import to_json

SIZE, IMAGES = 16, 6
FINGERPRINT = "0123456789abcdef"


def training(margin: Any) -> Training:
    augment = Augment(crop=SIZE, gamma=(0.5, 1.5))
    return Training(margin=margin, network=SmallNetwork(width=16, dim=8), augment=augment, epochs=4, batch_size=8)


STUDY = Study(
    "tracked",
    datasets=[Dataset("oai", phantom={"subjects": 3}), Dataset("cxr14", root="/somewhere")],
    arms=[Arm("ada/automargin", training(AutoMargin())), Arm("ada/fixed", training(FixedMargin()))],
    search=Search(epochs_budget=8, max_epochs=4),
    confirmation=Confirmation(seeds=3, folds=1),
    question="Does it?",
)


@dataclass
class Fake:
    """One run that pretends to train."""

    path: Path
    task: Task
    recorder: Recorder

    def train(self, epochs: int, best: float | None = None, **extra: float | Callable[[int], float]) -> Fake:
        """Append epochs; ``val/map`` rises to ``best`` in the last but one of them and falls then.

        Args:
            extra: further figures, or functions of the epoch that give them.
        """
        run = self.task.run
        network = build_seeded(run.training.network, 1, run.seed)
        optimizer = torch.optim.Adam(network.parameters())
        n = np.arange(IMAGES)
        months = np.zeros(IMAGES, dtype=np.float32)
        subset = Subset(np.zeros((IMAGES, 1, SIZE, SIZE), np.uint8), n, n // 2, n % 2, months, n % 2 == 0, n % 2 == 1)
        embeddings = torch.nn.functional.normalize(
            torch.randn(IMAGES, 8, generator=torch.Generator().manual_seed(0)), dim=1
        )
        margin = Margin(torch.tensor(0.25), torch.tensor(0.0))
        first = len(self.recorder.rows)
        for epoch in range(first, first + epochs):
            value = 0.5 + epoch / 100
            if best is not None:
                value = best - 0.01 * abs(epoch - (first + epochs - 2))
            trained = {"train/loss": 1 / epoch, "margin/epsilon": 0.2, "margin/beta": 0.1} if epoch else {}
            more = {k: v(epoch) if callable(v) else v for k, v in extra.items()}
            metrics = {"val/map": value, **trained, **more}
            self.recorder.epoch(epoch, metrics, State(epoch, network, optimizer, margin, embeddings, subset))
        if self.task.labels["kind"] in ("confirmation", "default"):
            write_embeddings(self.path / "embeddings" / "test.parquet", embeddings, subset)
        return self

    def rows(self) -> list[dict[str, Any]]:
        return RunFolder.open(self.path).epochs()


@dataclass
class Place:
    """A workspace, its study and what MLflow's database holds."""

    workspace: Path
    plan: Plan

    @property
    def study(self) -> Path:
        return self.workspace / "studies" / STUDY.name

    def fake(self, task: Task) -> Fake:
        path = self.study / task.folder
        return Fake(path, task, Recorder(RunFolder.create(path, task.run, task.labels)))

    def trial(self, number: int = 0, dataset: str = "oai", arm: str = "ada/automargin", **params: Any) -> Fake:
        return self.fake(self.plan.trial(SearchKey(dataset, arm, 0), number, params, 0))

    def confirmation(self, index: int, arm: str = "ada/automargin", dataset: str = "oai") -> Fake:
        return self.fake(self.plan.confirmations(SearchKey(dataset, arm, 0), {})[index])

    def sql(self, query: str, *args: Any) -> list[tuple[Any, ...]]:
        with sqlite3.connect(self.workspace / "mlflow.db") as connection:
            return connection.execute(query, args).fetchall()

    def points(self) -> list[tuple[Any, ...]]:
        """All metric points of active runs: (run folder, key, step, timestamp, value)."""
        return sorted(
            self.sql(
                "SELECT t.value, m.key, m.step, m.timestamp, m.value FROM metrics m JOIN runs r USING (run_uuid) "
                "JOIN tags t USING (run_uuid) WHERE t.key = 'marginlab.run_folder' AND r.lifecycle_stage = 'active'"
            )
        )

    def of_epochs(self) -> list[tuple[Any, ...]]:
        """The points without those that follow from a run's end."""
        return [p for p in self.points() if not p[1].startswith(("best/", "final/", "test/"))]

    def expected(self, *fakes: Fake) -> list[tuple[Any, ...]]:
        """The points of the folders' rows, each once."""
        return sorted(
            (f.task.folder, key, row["epoch"], round(row["time"] * 1000), value)
            for f in fakes
            for row in f.rows()
            for key, value in row.items()
            if key not in ("epoch", "time")
        )

    def run(self, fake: Fake) -> Any:
        """MLflow's run of a folder."""
        client = connect(self.workspace).client
        where = f"tags.`marginlab.run_folder` = '{fake.task.folder}'"
        (run,) = client.search_runs([e.experiment_id for e in client.search_experiments()], where)
        return run

    def artifacts(self, fake: Fake) -> list[str]:
        root = Path(unquote(urlsplit(self.run(fake).info.artifact_uri).path))
        return sorted(str(p.relative_to(root)) for p in root.rglob("*") if p.is_file())


def new_place(workspace: Path, database: Path | None = None) -> Place:
    """A workspace with the study declared, and a copy of an empty database: MLflow takes seconds to make one."""
    plan = Plan(STUDY, {"oai": FINGERPRINT, "cxr14": "f" * 16}, tuple(d.name for d in STUDY.datasets if d.phantom))
    made = Place(workspace, plan)
    made.study.mkdir(parents=True)
    if database is not None:
        shutil.copyfile(database, workspace / "mlflow.db")
    write_json(
        made.study / "study.json",
        {"format": 1, "study": to_json(STUDY), "data": made.plan.data, "phantoms": made.plan.phantoms},
    )
    return made


def new_packed(folder: Path) -> Path:
    """A packed dataset with the fingerprint that the runs name."""
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (IMAGES, 1, SIZE, SIZE), dtype=np.uint8)
    np.save(folder / "images.npy", pixels)
    n = range(IMAGES)
    columns = {"row": list(n), "subject": [f"s{i // 2}" for i in n], "label": [f"s{i // 2}" for i in n]}
    columns |= {"months": [12.0 * (i % 2) for i in n], "split": ["train"] * IMAGES, "fold": [i // 2 for i in n]}
    columns |= {"role": ["gallery", "query"] * (IMAGES // 2), "channels": [1] * IMAGES}
    frame = pl.DataFrame({k: pl.Series(columns.get(k, [None] * IMAGES), dtype=t) for k, t in SCHEMA.items()})
    frame.write_parquet(folder / "manifest.parquet")
    info = {
        "name": "oai",
        "label": "subject",
        "size": SIZE,
        "channels": 1,
        "mean": [0.4],
        "std": [0.2],
        "images": IMAGES,
    }
    info |= {"fingerprint": FINGERPRINT, "phantom": "OaiPhantom v1", "format": 1, "reader": "none", "crop": None}
    (folder / "dataset.json").write_text(json.dumps(info))
    (folder / "report.json").write_text("{}")
    return folder
