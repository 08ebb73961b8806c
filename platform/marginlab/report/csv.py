"""The tables as CSV: full precision, one row per fact, empty where there is nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import polars as pl

from marginlab import cost, tables
from marginlab.compare import exploratory, single_folds
from marginlab.files import write_text
from marginlab.results import Results

FRAMES: dict[str, Callable[[Results], pl.DataFrame]] = {
    "headline": tables.headline,
    "defaults": lambda results: tables.headline(results, "default"),
    "exploratory": exploratory,
    "single_folds": single_folds,
    "beside_published": tables.beside_published,
    "searches": tables.searches,
    "spaces": lambda results: tables.spaces(results.study),
    "best_so_far": cost.best_so_far,
    "to_target": cost.to_target,
    "time_use": tables.time_use,
    "epochs": lambda results: results.epochs(),
    "runs": lambda results: results.runs(),
}


def write_csv(results: Results, out_folder: Path) -> list[Path]:
    """One file per frame of :data:`FRAMES`, each whole or absent."""
    return [_write(frame(results), out_folder / f"{name}.csv") for name, frame in FRAMES.items()]


def _write(frame: pl.DataFrame, path: Path) -> Path:
    write_text(path, frame.write_csv())
    return path
