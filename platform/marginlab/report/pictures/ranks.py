"""At which rank each query's first right answer stands, of every seed: kept in the study's folder, as ranking takes time."""

from __future__ import annotations

import contextlib
import io

import numpy as np
import polars as pl

from marginlab.files import write_bytes
from marginlab.report.pictures.confirmed import Confirmed, Model, Seed

RANKS: dict[str, type[pl.DataType]] = {
    "months": pl.Int64,  # after the subject's first visit
    "first": pl.Int64,  # rank of the nearest right answer; queries without any are left out
    "gallery": pl.Int64,  # images in it
    "every": pl.Int64,  # one of so many queries was followed
}


def first_ranks(confirmed: Confirmed, seed: Seed) -> pl.DataFrame:
    """A row per query (:data:`RANKS`). A kept file is named by what it was made from: one that no longer fits is not found."""
    path = confirmed.folder / "scores" / f"{seed.key}-first.parquet"
    with contextlib.suppress(OSError, pl.exceptions.PolarsError):  # absent or damaged
        kept = pl.read_parquet(path)
        if dict(kept.schema) == RANKS:
            return kept
    made = _ranked(confirmed.model(seed))
    whole = io.BytesIO()
    made.write_parquet(whole)
    with contextlib.suppress(OSError):  # a study can be read where nothing can be written
        write_bytes(path, whole.getvalue(), patient=False)
    return made


def _ranked(model: Model) -> pl.DataFrame:
    first, matched = model.ranking.first(), model.ranking.r > 0
    columns = {
        "months": np.round(model.months[model.query])[matched],
        "first": first[matched],
        "gallery": np.full(matched.sum(), len(model.gallery)),
        "every": np.full(matched.sum(), model.every),
    }
    return pl.DataFrame({name: column.astype(np.int64) for name, column in columns.items()})
