"""Test figures: what their names say, those of several fold models that answer as one ensemble, and those of groups."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import polars as pl

from marginlab.data.subset import Subset
from marginlab.retrieval import AT_K, METRICS, Figures, Ranking, concatenate, protocol_means, protocol_queries
from marginlab.runs import read_embeddings, roles
from marginlab.stored import visits
from marginlab.values import InputError

GROUPS = {
    "by": pl.String,  # the column; null: all queries
    "group": pl.String,  # its value; null: the queries that have none
    "queries": pl.Int64,
    "unmatched": pl.Int64,  # of them: no match in the gallery, so in no mean
    "metric": pl.String,
    "value": pl.Float64,  # null where no query has a match
}
QUERIES: dict[str, type[pl.DataType]] = {
    "row": pl.Int64,  # of the packed dataset
    "label": pl.Int64,
    "subject": pl.Int64,  # whose query it is: what is drawn anew in intervals; the label where files do not tell
    "months": pl.Float32,
    **{name: pl.Float64 for name in METRICS},  # NaN for a query without a match, which is in no mean
    "mrr": pl.Float64,  # 1 / rank of its nearest right answer
}  # and, where labels are grades, AT_K
WORST: dict[str, type[pl.DataType]] = {
    "query": pl.Int64,  # packed rows
    "value": pl.Float64,
    "wrong": pl.Int64,  # the nearest wrong answer; null where all that competed were right
    "wrong_rank": pl.Int64,
    "right": pl.Int64,
    "right_rank": pl.Int64,
}
_HORIZON = re.compile(r"(?P<metric>.+)_(?P<months>\d+)m")


def ensemble_scores(frames: list[pl.DataFrame]) -> dict[str, float]:
    """The figures of several models of the same images as one: similarities are averaged, as in the published protocol.

    Args:
        frames: each model's test embeddings, as ``runs.write_embeddings`` wrote them. Gallery: first visits; query: later ones.
    """
    return query_means(ensemble_queries(frames))


def query_means(queries: pl.DataFrame) -> dict[str, float]:
    """The figures over all queries and by horizon of a frame of :data:`QUERIES`."""
    if queries.is_empty():
        return {}
    names = [name for name in (*METRICS, *AT_K) if name in queries.columns]
    return protocol_means({name: queries[name].to_numpy() for name in names}, queries["months"].to_numpy())


def ensemble_queries(frames: list[pl.DataFrame], *, graded: bool = False) -> pl.DataFrame:
    """Each query's figures (:data:`QUERIES`) for several models as one, in the order of the rows."""
    frames = [f.sort("row") for f in frames]
    first = frames[0]
    if not all(f.select("row", "label").equals(first.select("row", "label")) for f in frames):
        raise InputError(
            "Test embeddings of one seed's folds are of different images: delete the seed's run folders and run again."
        )
    label, months = (first[name].to_numpy().copy() for name in ("label", "months"))
    query, gallery = roles(first)
    names = (*METRICS, "mrr", *(AT_K if graded else ()))
    schema = QUERIES | dict.fromkeys(names, pl.Float64)
    subset = Subset(
        pixels=np.empty((0, 0, 0, 0), dtype=np.uint8),
        rows=first["row"].to_numpy().copy(),
        label=label,
        visit=visits(label, months),
        months=months,
        gallery=gallery,
        query=query,
    )
    columns = protocol_queries(concatenate([read_embeddings(f) for f in frames]), subset, names)
    if not columns:
        return pl.DataFrame(schema=schema)
    place = first.select(
        "row", "label", pl.col("subject" if "subject" in first else "label").alias("subject"), "months"
    )
    return place.filter(pl.Series(subset.query)).with_columns(**columns).cast(schema)  # type: ignore[arg-type]


def long_scores(scores: dict[str, float]) -> Iterator[dict[str, Any]]:
    """Figures by name ("test/map", "test/map_12m") as rows of metric, horizon (None: all queries) and value."""
    for name, v in scores.items():
        metric, horizon = split_metric(name)
        yield {"metric": metric, "horizon": horizon, "value": v}


def split_metric(name: str) -> tuple[str, int | None]:
    """``test/map_12m`` to ``("test/map", 12)``; a name without months to itself and None (all queries)."""
    found = _HORIZON.fullmatch(name)
    return (found["metric"], int(found["months"])) if found else (name, None)


def group_scores(ranking: Ranking, queries: pl.DataFrame, metrics: Sequence[str] = METRICS) -> pl.DataFrame:
    """The figures of all queries, and by each column of ``queries``: view, side, grade, horizon, whatever has few values.

    Args:
        queries: one row per query of the ranking, such as the manifest's rows of them. Months are rounded.

    Returns:
        One row per group and metric (:data:`GROUPS`).
    """
    found: list[tuple[str | None, Figures]] = [(None, ranking.figures(metrics))]
    for name in queries.columns:
        column = queries[name]
        values = column.round().to_list() if column.dtype.is_float() else column.to_list()
        found += [(name, figures) for figures in ranking.by(values, metrics)]
    rows = [
        {
            "by": name,
            "group": None if f.group is None else f"{f.group:g}" if isinstance(f.group, float) else str(f.group),
            "queries": f.queries,
            "unmatched": f.unmatched,
            "metric": metric,
            "value": None if np.isnan(value) else value,
        }
        for name, f in found
        for metric, value in f.means.items()
    ]
    return pl.DataFrame(rows, schema=GROUPS)


def worst_queries(
    ranking: Ranking, query_rows: np.ndarray, gallery_rows: np.ndarray, n: int = 10, metric: str = "map"
) -> pl.DataFrame:
    """The queries of the lowest figure with their first wrong and first right match (:data:`WORST`), lowest first.

    Args:
        query_rows, gallery_rows: the packed dataset's row of each query and gallery item.
    """
    rows = [
        (
            int(query_rows[w.query]),
            w.value,
            None if w.wrong is None else int(gallery_rows[w.wrong]),
            w.wrong_rank,
            int(gallery_rows[w.right]),
            w.right_rank,
        )
        for w in ranking.worst(n, metric)
    ]
    return pl.DataFrame(rows, schema=WORST, orient="row")
