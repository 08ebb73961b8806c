"""The ended trials of a dataset's searches as a frame: what pictures of the search are made of. Reads, and writes nothing."""

from __future__ import annotations

import json
from collections.abc import Sequence

import polars as pl

from marginlab.space import Choice
from marginlab.study import Arm

TRIED: dict[str, type[pl.DataType]] = {
    "arm": pl.String,
    "replicate": pl.Int64,
    "trial": pl.Int64,
    "state": pl.String,  # complete, pruned
    "value": pl.Float64,  # the objective; of a pruned trial, where it was stopped
    "parameter": pl.String,  # its path
    "at": pl.Float64,  # its value; of a choice, the place among the options
    "best": pl.Boolean,  # the search's winner
}


def tried(trials: pl.DataFrame, arms: Sequence[Arm], dataset: str) -> pl.DataFrame:
    """A row per trial that has a value and parameter (:data:`TRIED`), in the order of the arms.

    Args:
        trials: ``Results.trials()``.
    """
    ended = trials.filter(pl.col("dataset") == dataset, pl.col("value").is_finite())
    rows = []
    for arm in arms:
        own = ended.filter(pl.col("arm") == arm.name).sort("replicate", "trial")
        winners = _winners(own)
        for trial in own.iter_rows(named=True):
            for path, v in json.loads(trial["params"]).items():
                at = place(arm, path, v)
                if at is not None:
                    number = (trial["replicate"], trial["trial"])
                    rows.append((arm.name, *number, trial["state"], trial["value"], path, at, number in winners))
    return pl.DataFrame(rows, schema=TRIED, orient="row")


def _winners(ended: pl.DataFrame) -> set[tuple[int, int]]:
    """As ``search.best_params`` has it: the earliest of the best complete trials of each search."""
    complete = ended.filter(pl.col("state") == "complete").sort("value", "trial", descending=[True, False])
    return set(complete.unique("replicate", keep="first", maintain_order=True).select("replicate", "trial").rows())


def place(arm: Arm, path: str, v: object) -> float | None:
    """Where a parameter's value stands on an axis; None for what the arm's space no longer has."""
    allowed = arm.space.get(path)
    if isinstance(allowed, Choice):
        return float(allowed.options.index(v)) if v in allowed.options else None
    return float(v) if allowed is not None and isinstance(v, (int, float)) else None
