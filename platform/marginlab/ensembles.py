"""What each query scored with the fold models of one seed as an ensemble, kept in the study's folder.

Ranking the test queries again takes longer than all else that a comparison does. A file is named by what it was made from (the
runs, and when each ended), so one that no longer fits is never read: it is not found.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl

from marginlab.files import write_bytes
from marginlab.retrieval import AT_K
from marginlab.runs import RunFolder
from marginlab.scores import QUERIES, ensemble_queries
from marginlab.values import fingerprint

FOLDER = "scores"
FORMAT = 1
_AT_K = tuple(f"test/{name}" for name in AT_K)


def scored(study: Path, models: Sequence[tuple[RunFolder, dict[str, Any]]]) -> pl.DataFrame | None:
    """The queries (``scores.QUERIES``) of one ensemble; None where neither its scores nor all its embeddings are there.

    Args:
        models: the runs of one seed, one per fold, and their results.
    """
    key = fingerprint([FORMAT, *sorted([f.run.id, repr(result.get("time"))] for f, result in models)])
    path = study / FOLDER / f"{key}.parquet"
    kept = _read(path)
    if kept is not None:
        return kept
    frames = [f.embeddings("test") for f, _ in models]
    if any(frame is None for frame in frames):
        return None
    graded = any(name.startswith(_AT_K) for _, result in models for name in result.get("test", {}))
    queries = ensemble_queries([frame for frame in frames if frame is not None], graded=graded)
    whole = io.BytesIO()
    queries.write_parquet(whole)
    with contextlib.suppress(OSError):  # a study can be read where nothing can be written, or no longer
        write_bytes(path, whole.getvalue(), patient=False)
    return queries


def _read(path: Path) -> pl.DataFrame | None:
    try:
        kept = pl.read_parquet(path)
    except (OSError, pl.exceptions.PolarsError):  # absent or damaged
        return None
    return kept if QUERIES.items() <= dict(kept.schema).items() else None
