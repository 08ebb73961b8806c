"""CMC curves: the share of queries with a right answer among the first k."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl
from markupsafe import Markup

from marginlab.report import figures
from marginlab.report.pictures.confirmed import Confirmed
from marginlab.report.pictures.picture import Picture
from marginlab.report.words import count
from marginlab.results import Results
from marginlab.values import InputError

RANKS = 20
TITLE = "CMC curves"
CURVES: dict[str, type[pl.DataType]] = {
    "arm": pl.String,
    "horizon": pl.Int64,  # months; null: all queries
    "queries": pl.Int64,  # that have a right answer
    "rank": pl.Int64,
    "mean": pl.Float64,  # over seeds; search replicates are averaged within a seed
    "se": pl.Float64,  # null for one seed
    "n": pl.Int64,  # seeds
}


def picture(results: Results, confirmed: Confirmed) -> Picture:
    """Three panels: all queries, and those of the shortest and the longest horizon."""
    if not confirmed.seeds:
        raise InputError("No seed has test embeddings yet.")
    size = max(len(m.gallery) for m in confirmed.first.values())
    frame = curves(results.queries().filter(pl.col("dataset") == confirmed.dataset), min(RANKS, size))
    if not len(frame):
        raise InputError("No query of the test split has a right answer in the gallery.")
    caption = (
        "The share of queries with at least one right answer among the first k (the first match counts): mean over seeds, "
        "bars one standard error."
    )
    arms = [a.name for a in results.study.arms]
    panels = [
        (_title(own["horizon"][0], own["queries"][0]), Markup(drawing(own, arms)))
        for own in frame.partition_by("horizon", maintain_order=True)
    ]
    return Picture(TITLE, caption, panels)


def _title(horizon: int | None, queries: int) -> str:
    number = count(queries, "query").replace("ys", "ies")
    return f"all {number}" if horizon is None else f"{horizon} months ({number})"


def curves(queries: pl.DataFrame, ranks: int = RANKS) -> pl.DataFrame:
    """By horizon, arm and rank (:data:`CURVES`); an arm without a tested seed is left out.

    Args:
        queries: ``Results.queries()`` of one dataset.
        ranks: the last one, at most the size of the gallery.
    """
    matched = queries.filter(pl.col("mrr").is_finite())
    at = matched.select("arm", "replicate", "seed_index", pl.col("months").round(), first=(1 / pl.col("mrr")).round())
    rows = []
    for seed in at.partition_by("arm", "replicate", "seed_index", maintain_order=True):
        first, months = seed["first"].to_numpy(), seed["months"].to_numpy()
        for horizon in _horizons(months):
            own = first if horizon is None else first[months == horizon]
            for k in range(1, ranks + 1):
                rows.append((seed["arm"][0], seed["seed_index"][0], horizon, len(own), k, float(np.mean(own <= k))))
    schema = {"arm": pl.String, "seed_index": pl.Int64, **{n: pl.Int64 for n in ("horizon", "queries", "rank")}}
    frame = pl.DataFrame(rows, schema={**schema, "value": pl.Float64}, orient="row")
    keys = ["arm", "horizon", "queries", "rank"]
    seeds = frame.group_by(*keys, "seed_index", maintain_order=True).agg(pl.col("value").mean())
    curves = seeds.group_by(keys, maintain_order=True).agg(
        mean=pl.col("value").mean(),
        se=pl.col("value").std(ddof=1) / pl.len().sqrt(),
        n=pl.len().cast(pl.Int64),
    )
    return curves.sort("horizon", nulls_last=False, maintain_order=True).select(*CURVES)


def _horizons(months: np.ndarray) -> list[int | None]:
    """All queries (None), the nearest horizon and the furthest, of those known; empty where there is no query."""
    if not len(months):
        return []
    known = months[np.isfinite(months)]
    ends = sorted({int(known.min()), int(known.max())}) if len(known) else []
    return [None, *ends] if len(ends) > 1 else [None]


def drawing(frame: pl.DataFrame, arms: Sequence[str]) -> str:
    """The curves of one horizon."""
    most = int(frame["rank"].max())  # type: ignore[arg-type]
    with figures.axes("rank k", "right among the first k") as (figure, ax):
        for index, arm in enumerate(arms):
            own = frame.filter(pl.col("arm") == arm).sort("rank")
            # Beside one another, so that no bar hides another's.
            at = own["rank"].to_numpy() + (index - (len(arms) - 1) / 2) * 0.1
            colour, marker = figures.stand_in(index), figures.MARKERS[index % len(figures.MARKERS)]
            style = {"color": colour, "linewidth": 1.5, "linestyle": figures.line_style(index)}
            ax.plot(at, own["mean"], **style)  # type: ignore[arg-type]
            bars = own["se"].fill_null(0.0)
            ax.errorbar(at, own["mean"], yerr=bars, fmt=marker, color=colour, markersize=3.5, elinewidth=0.8, alpha=0.9)
        ax.set_xticks([1, *range(5, most + 1, 5)])
        ax.set_xlim(0.4, most + 0.6)
        low, high = ax.get_ylim()
        ax.set_ylim(min(low, 0.95), min(1.02, high))  # what is nearly 1 everywhere is not blown up
        return figures.as_svg(figure, "CMC curves by arm")
