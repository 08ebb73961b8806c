"""A study's folder with known numbers, written without training: 2 datasets (one of phantoms), 3 arms, trials, confirmations.

Per search three trials: 0.50, 0.51 (complete, 4 epochs) and one pruned after 2 of 4; so 10 of 12 epochs are spent and trial 1
wins. Confirmation: seed k ends at validation mAP 0.48 + 0.01 k. Test mAP by seed is ``TEST``; at 12 and 24 months it is 0.02
and 0.05 lower; the other metrics are lower than mAP by a fixed amount. Every epoch takes 4 s: data 1, forward 2,
evaluation 0.5, checkpoint 0.5. No two runs overlap.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from marginlab.losses import AdaTriplet, Triplet
from marginlab.margins import AutoMargin, FixedMargin
from marginlab.plan import Plan, SearchKey, Task
from marginlab.space import choice, uniform
from marginlab.study import Arm, Comparison, Confirmation, Dataset, Search, Study
from marginlab.training import Training
from marginlab.values import to_json

TEST = {
    ("oai", "automargin"): [0.90, 0.92, 0.94],
    ("oai", "fixed"): [0.89, 0.905, 0.92],  # differences 0.010, 0.015, 0.020
    ("oai", "triplet"): [0.85, 0.86, 0.87],
    ("knees", "automargin"): [0.80, 0.81, 0.85],
    ("knees", "fixed"): [0.81, 0.80, 0.82],  # differences -0.01, 0.01, 0.03
    ("knees", "triplet"): [0.70, 0.71, 0.72],
}
LOWER = {"map": 0.0, "map_at_r": 0.1, "cmc_1": 0.03, "cmc_allshots_1": 0.05}
HORIZONS = {None: 0.0, 12: 0.02, 24: 0.05}
EPOCHS = 4
STEPS = {"time/data_s": 1.0, "time/forward_s": 2.0, "time/evaluation_s": 0.5, "time/checkpoint_s": 0.5}
SUMMARY_STEPS = {"phantoms": 10.0, "prepare": 20.0, "ray": 5.0, "search": 400.0, "confirmation": 400.0, "report": 2.0}


def study(seeds: int = 3, folds: int = 1, **changes: Any) -> Study:
    arms = [
        Arm("automargin", Training(margin=AutoMargin()), {"margin.k_delta": choice([1.0, 2.0, 4.0])}),
        Arm("fixed", Training(loss=AdaTriplet(), margin=FixedMargin()), {"margin.epsilon": uniform(0.0, 1.0)}),
        Arm("triplet", Training(loss=Triplet(), margin=FixedMargin(beta=None)), {"margin.epsilon": uniform(0.0, 1.0)}),
    ]
    fields: dict[str, Any] = {
        "name": "demo",
        "datasets": [Dataset("oai", root="/raw/oai"), Dataset("knees", phantom={"subjects": 8})],
        "arms": arms,
        "search": Search(epochs_budget=12, max_epochs=EPOCHS),
        "confirmation": Confirmation(seeds=seeds, folds=folds),
        "comparison": Comparison(contrast=("automargin", "fixed"), margin=0.01),
        "question": "Does AutoMargin match the best fixed margin?",
    }
    return Study(**{**fields, **changes})


def params_of(arm: str, number: int) -> dict[str, Any]:
    return (
        {"margin.k_delta": [2.0, 4.0, 1.0][number]}
        if arm == "automargin"
        else {"margin.epsilon": [0.25, 0.5, 0.75][number]}
    )


def write_json(path: Path, data: Any) -> None:
    """Without flushing to the disk, which takes most of the time of hundreds of small files."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data))


class Synthetic:
    """Writes the folder; what the tests leave out or change are the arguments and methods."""

    def __init__(
        self, folder: Path, question: Study | None = None, test: dict[tuple[str, str], list[float]] = TEST
    ) -> None:
        self.folder, self.study, self.test = folder, question or study(), test
        self.plan = Plan(
            self.study,
            {d.name: f"{d.name:0<16}" for d in self.study.datasets},
            tuple(d.name for d in self.study.datasets if d.phantom is not None),
        )
        self.clock = 1_700_000_000.0
        write_json(
            folder / "study.json",
            {"format": 1, "study": to_json(self.study), "data": self.plan.data, "phantoms": self.plan.phantoms},
        )

    def whole(self, summary: bool = True) -> Path:
        for key in self.plan.searches():
            self.trials(key)
            for task in self.plan.confirmations(key, params_of(key.arm, 1)):
                self.confirmation(task)
        if summary:
            self.summary()
        return self.folder

    def trials(self, key: SearchKey) -> None:
        for number, (last, epochs, state) in enumerate(
            [(0.50, 4, "complete"), (0.51, 4, "complete"), (0.30, 2, "pruned")]
        ):
            self.run(self.plan.trial(key, number, params_of(key.arm, number), 0), last, epochs, state)

    def confirmation(self, task: Task, scored: bool = True) -> Path:
        index, place = task.labels["seed_index"], (task.run.dataset, task.labels["arm"])
        value = self.test[place][index]
        scores = {
            f"test/{metric}" + (f"_{h}m" if h else ""): round(value - lower - further, 6)
            for metric, lower in LOWER.items()
            for h, further in HORIZONS.items()
        }
        return self.run(task, 0.48 + 0.01 * index, EPOCHS, "complete", scores if scored else {})

    def run(
        self, task: Task, last: float, epochs: int, state: str | None, scores: dict[str, float] | None = None
    ) -> Path:
        """A run folder whose validation mAP rises in a straight line from 0.1 to ``last``."""
        path = self.folder / task.folder
        write_json(path / "run.json", {"id": task.run.id, "run": to_json(task.run), "labels": task.labels})
        auto = task.labels["margin_policy"] == "AutoMargin"
        rows = []
        for epoch in range(epochs + 1):
            self.clock += 4.0
            row = {"epoch": epoch, "time": self.clock - 0.5, "val/map": 0.1 + (last - 0.1) * epoch / epochs, **STEPS}
            row["time/images_per_s"] = 1000.0
            if epoch:
                row["margin/epsilon"] = 0.25 + 0.05 * (epoch - 1) * auto
                row["margin/beta"] = float("nan") if task.labels["arm"] == "triplet" else 0.1 * (epoch - 1) * auto
            rows.append(row)
        (path / "epochs.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
        if state:
            result = {"state": state, "reason": "", "epochs": epochs, "best_epoch": epochs, "best": last, "last": last}
            write_json(path / "result.json", {**result, "time": self.clock, "test": scores or {}})
        return path

    def summary(self, **changes: Any) -> None:
        searches = {
            str(key): {
                **{"trials": 3, "modelled": 1, "pruned": 1, "failed": 0, "running": 0, "epochs": 10, "budget": 12},
                **{"best": 0.51, "params": params_of(key.arm, 1)},
            }
            for key in self.plan.searches()
        }
        machine = {"cpus": 2, "gpus": 0}
        write_json(
            self.folder / "summary.json", {"steps": SUMMARY_STEPS, "searches": searches, "machine": machine, **changes}
        )


def write_test_embeddings(
    path: Path, rows: np.ndarray, label: np.ndarray, months: np.ndarray, embeddings: np.ndarray
) -> None:
    """As ``runs.write_embeddings`` writes them: embeddings [n, D]."""
    (path / "embeddings").mkdir(exist_ok=True)
    array = pl.Series(embeddings.astype(np.float32), dtype=pl.Array(pl.Float32, embeddings.shape[1]))
    frame = pl.DataFrame({"row": rows, "label": label, "months": months.astype(np.float32), "embedding": array})
    frame.write_parquet(path / "embeddings" / "test.parquet")


def edit_json(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
