"""The tables as CSV: full precision, one row per fact, empty where there is nothing."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from marginlab import tables
from marginlab.files import aside
from marginlab.results import Results


def write_csv(results: Results, out_folder: Path) -> list[Path]:
    """``headline.csv``, ``epochs.csv`` and ``runs.csv``, each whole or absent."""
    frames = {"headline": tables.headline(results), "epochs": results.epochs(), "runs": results.runs()}
    return [_write(frame, out_folder / f"{name}.csv") for name, frame in frames.items()]


def _write(frame: pl.DataFrame, path: Path) -> Path:
    with aside(path) as temporary:
        frame.write_csv(temporary)
    return path
