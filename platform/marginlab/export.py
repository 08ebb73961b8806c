"""A study's trials, runs and epochs as three files that other programs read.

    trials   a row per Optuna trial    ``results.TRIALS`` and a column per searched parameter
    runs     a row per run             ``results.RUNS``
    epochs   a row per run and epoch   ``Results.epochs``: losses, margins, validation figures, seconds by step

``dataset``, ``arm``, ``replicate`` and ``trial`` join trials to runs, ``id`` joins runs to epochs. Points in time are UTC
datetimes here, though the frames count seconds since 1970. Nothing in the three names a person, an image or a file of either.
"""

from __future__ import annotations

from pathlib import Path

import polars as pl

from marginlab.files import aside
from marginlab.results import Results
from marginlab.values import InputError

FORMATS = ("parquet", "csv")


def tables(results: Results) -> dict[str, pl.DataFrame]:
    """What is exported, by the name of its file."""
    return {
        "trials": results.trials(),
        "runs": results.runs().with_columns(_moment("ended")),
        "epochs": results.epochs().with_columns(_moment("time")),
    }


def export(results: Results, out: Path, format: str = "parquet") -> dict[Path, int]:
    """Write the files into a folder, which is made where it is missing. Each replaces one of its name, whole or not at all.

    Returns:
        The number of rows of each file.

    Raises:
        InputError: the format is unknown, or the folder cannot be one.
    """
    check(out, format)
    written = {}
    for name, frame in tables(results).items():
        path = out / f"{name}.{format}"
        with aside(path) as temporary:
            if format == "parquet":
                frame.write_parquet(temporary)
            else:
                frame.write_csv(temporary, datetime_format="%Y-%m-%dT%H:%M:%S%.3fZ")
        written[path] = len(frame)
    return written


def check(out: Path, format: str) -> None:
    if format not in FORMATS:
        raise InputError(f"There is no format {format!r}; there are {' and '.join(FORMATS)}.")
    for folder in (out, *out.parents):
        if folder.exists() and not folder.is_dir():
            raise InputError(f"{folder} is a file: name a folder for the files of the export.")


def _moment(column: str) -> pl.Expr:
    """Seconds since 1970 as a UTC datetime."""
    microseconds = (pl.col(column) * 1_000_000).round().cast(pl.Int64)
    return pl.from_epoch(microseconds, time_unit="us").dt.replace_time_zone("UTC").alias(column)
