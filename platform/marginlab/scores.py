"""Test figures: what their names say, and those of several fold models that answer as one ensemble."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import polars as pl

from marginlab.data.subset import Subset
from marginlab.retrieval import concatenate, protocol_scores
from marginlab.runs import read_embeddings
from marginlab.values import InputError

_HORIZON = re.compile(r"(?P<metric>.+)_(?P<months>\d+)m")


def ensemble_scores(frames: list[pl.DataFrame]) -> dict[str, float]:
    """The figures of several models of the same images as one: similarities are averaged, as in the published protocol.

    Args:
        frames: each model's test embeddings, as ``runs.write_embeddings`` wrote them. Gallery: first visits; query: later ones.
    """
    frames = [f.sort("row") for f in frames]
    first = frames[0]
    if not all(f.select("row", "label").equals(first.select("row", "label")) for f in frames):
        raise InputError(
            "Test embeddings of one seed's folds are of different images: delete the seed's run folders and run again."
        )
    label, months = (first[name].to_numpy().copy() for name in ("label", "months"))
    unknown = np.isnan(months)
    visits = np.stack([label, np.where(unknown, -1.0 - np.arange(len(months)), months)], axis=1)
    subset = Subset(
        pixels=np.empty((0, 0, 0, 0), dtype=np.uint8),
        rows=first["row"].to_numpy().copy(),
        label=label,
        visit=np.unique(visits, axis=0, return_inverse=True)[1].reshape(-1),
        months=months,
        gallery=months == 0,
        query=months > 0,
    )
    return protocol_scores(concatenate([read_embeddings(f) for f in frames]), subset)


def long_scores(scores: dict[str, float]) -> Iterator[dict[str, Any]]:
    """Figures by name ("test/map", "test/map_12m") as rows of metric, horizon (None: all queries) and value."""
    for name, v in scores.items():
        metric, horizon = split_metric(name)
        yield {"metric": metric, "horizon": horizon, "value": v}


def split_metric(name: str) -> tuple[str, int | None]:
    """``test/map_12m`` to ``("test/map", 12)``; a name without months to itself and None (all queries)."""
    found = _HORIZON.fullmatch(name)
    return (found["metric"], int(found["months"])) if found else (name, None)
