"""The polars frames that every output renders. Numbers live here; how they look is the business of ``report``."""

from __future__ import annotations

import math
from typing import Any

import polars as pl

from marginlab.compare import optimism
from marginlab.published import beside
from marginlab.results import Results, step_seconds
from marginlab.study import Study

AT_K = {"mhr_at": "mHR", "map_at": "mAP"}  # where labels are grades
METRICS = {
    "test/map": "mAP",
    "test/map_at_r": "mAP@R",
    "test/cmc_1": "CMC-1",
    "test/cmc_allshots_1": "CMC-1 allshots",
    **{
        f"test/{name}_10": f"{shown}@10" for name, shown in AT_K.items()
    },  # of several K one is shown, all are in the CSV
}
CURVES = ("val/map", "margin/epsilon", "margin/beta")
STUDY_STEPS = ("phantoms", "prepare", "ray", "estimate", "search", "confirmation", "report")
IN_RUNS, ON_CLOCK, BUSY = "in runs", "on the clock", "search + confirmation"
_TIME = {"part": pl.String, "step": pl.String, "seconds": pl.Float64, "share": pl.Float64}


def headline(results: Results, kind: str = "confirmation") -> pl.DataFrame:
    """Mean and standard error over seeds: dataset, arm, metric, horizon (months, null = all queries), mean, se, n.

    Search replicates share their seeds and are averaged within a seed. ``se`` is null for one seed. In the study's order.
    ``kind``: ``confirmation`` (of the searches' winners), or ``default`` (the arms' published defaults, never searched).
    """
    per_seed = (
        results.test(kind)
        .group_by("dataset", "arm", "metric", "horizon", "seed_index", maintain_order=True)
        .agg(pl.col("value").mean())
    )
    frame = per_seed.group_by("dataset", "arm", "metric", "horizon", maintain_order=True).agg(
        mean=pl.col("value").mean(),
        se=pl.col("value").std(ddof=1) / pl.len().sqrt(),
        n=pl.len().cast(pl.Int64),
    )
    order = [
        _place("dataset", [d.name for d in results.study.datasets]),
        pl.col("horizon"),  # nulls (all queries) come first
        _place("arm", [a.name for a in results.study.arms]),
        _place("metric", list(METRICS)),
        pl.col("metric"),
    ]
    return frame.sort(order, nulls_last=[False, False, False, True, True])


def _place(column: str, names: list[str]) -> pl.Expr:
    return pl.col(column).replace_strict(names, list(range(len(names))), default=None, return_dtype=pl.Int64)


def learning_curves(results: Results) -> pl.DataFrame:
    """Mean over the confirmation runs of an arm, by epoch: dataset, arm, metric (:data:`CURVES`), epoch, mean, n (runs)."""
    runs = single_curves(results).filter(pl.col("kind") == "confirmation")
    keys = ["dataset", "arm", "metric", "epoch"]
    return (
        runs.group_by(keys, maintain_order=True).agg(mean=pl.col("value").mean(), n=pl.len().cast(pl.Int64)).sort(keys)
    )


def single_curves(results: Results) -> pl.DataFrame:
    """The curves of each run that counts: id, kind, dataset, arm, metric (:data:`CURVES`), epoch, value; finite values alone."""
    epochs = results.epochs().filter(pl.col("current"))
    index = ["id", "kind", "dataset", "arm", "epoch"]
    present = [m for m in CURVES if m in epochs.columns]
    long = epochs.select(*index, *present).unpivot(index=index, on=present, variable_name="metric", value_name="value")
    return long.filter(pl.col("value").cast(pl.Float64).is_finite()).sort("dataset", "arm", "metric", "id", "epoch")


def searches(results: Results) -> pl.DataFrame:
    """One row per search: what it tried and cost, what it found, and how much its best value promised too much."""
    rows: list[dict[str, Any]] = []
    for key in results.plan.searches():
        found = results.searches.get(str(key), {})
        rows.append(
            {
                "dataset": key.dataset,
                "arm": key.arm,
                "replicate": key.replicate,
                **{name: found.get(name) for name in ("trials", "modelled", "pruned", "failed", "epochs")},
                "budget": found.get("budget", results.study.search.epochs_budget),
                "best": found.get("best"),
                "params": parameters(results.winner(key)),
            }
        )
    schema = {
        **{"dataset": pl.String, "arm": pl.String, "replicate": pl.Int64},
        **dict.fromkeys(("trials", "modelled", "pruned", "failed", "epochs", "budget"), pl.Int64),
        **{"best": pl.Float64, "params": pl.String},
    }
    place = ["dataset", "arm", "replicate"]
    tried = pl.DataFrame(rows, schema=schema)
    return tried.join(
        optimism(results).select(*place, "confirmed", "optimism"), on=place, how="left", maintain_order="left"
    )


def parameters(params: dict[str, Any] | None) -> str | None:
    """``margin.k_delta = 2, lr = 0.0001``; None where there is no winner."""
    if params is None:
        return None
    shown = (f"{k} = {v:.4g}" if isinstance(v, float) else f"{k} = {v}" for k, v in sorted(params.items()))
    return ", ".join(shown) or "nothing searched"


def spaces(study: Study) -> pl.DataFrame:
    """What each arm's search may vary: arm, dimensions, volume, space. An arm with more room has more to find, and to miss.

    ``volume`` is the product of the dimensions' sizes: options of a choice, the width of an interval (of a logarithmic one in
    natural logarithms), the count of whole numbers. Volumes of spaces with other dimensions are not comparable.
    """
    rows = [
        {
            "arm": arm.name,
            "dimensions": len(arm.space),
            "volume": math.prod(allowed.size() for allowed in arm.space.values()) if arm.space else 0.0,
            "space": ", ".join(f"{path}: {allowed}" for path, allowed in arm.space.items()) or "nothing searched",
        }
        for arm in study.arms
    ]
    return pl.DataFrame(
        rows, schema={"arm": pl.String, "dimensions": pl.Int64, "volume": pl.Float64, "space": pl.String}
    )


def beside_published(results: Results) -> pl.DataFrame:
    """The paper's tables and this study's figures in one frame (``published.SCHEMA``); empty where nothing was published."""
    return beside(results, headline(results))


def side_by_side(first: Results, second: Results) -> pl.DataFrame:
    """Two studies' test figures: dataset, arm, metric, horizon, then mean, se and n of each (``_second``); null where one has none."""
    on = ["dataset", "arm", "metric", "horizon"]
    joined = headline(first).join(
        headline(second), on=on, how="full", coalesce=True, nulls_equal=True, suffix="_second", maintain_order="left"
    )
    return joined.select(*on, "mean", "se", "n", "mean_second", "se_second", "n_second")


def time_use(results: Results) -> pl.DataFrame:
    """Where time went: part, step, seconds, share of the part.

    ``in runs``: seconds by training step, summed over all runs, which may overlap. ``on the clock``: the study's own steps.
    ``search + confirmation``: these two again, by whether any run was in an epoch; what is left is what the platform costs.
    """
    rows = results.epochs()
    steps = step_seconds(rows.select(pl.col("^time/.*_s$").sum()).row(0, named=True)) if len(rows) else {}
    clock: dict[str, float] = results.summary.get("steps", {})
    order = [s for s in STUDY_STEPS if s in clock] + sorted(set(clock) - {*STUDY_STEPS})
    parts = {IN_RUNS: dict(sorted(steps.items(), key=lambda s: -s[1])), ON_CLOCK: {s: clock[s] for s in order}}
    busy = busy_seconds(rows)
    idle = clock.get("search", 0.0) + clock.get("confirmation", 0.0) - busy
    if clock and idle >= 0:  # below zero the clock is that of the last session alone, the runs are of all
        parts[BUSY] = {"a run was busy": busy, "no run was busy": idle}
    out = []
    for part, spent in parts.items():
        total = sum(spent.values()) or 1.0
        out += [{"part": part, "step": step, "seconds": s, "share": s / total} for step, s in spent.items()]
    return pl.DataFrame(out, schema=_TIME)


def busy_seconds(epochs: pl.DataFrame) -> float:
    """Seconds in which at least one run was in an epoch: the union of all epochs' intervals."""
    spans = []
    for row in epochs.iter_rows(named=True):
        steps = step_seconds(row)
        # A row's time is that of its end of training, before its checkpoint was written.
        end = row["time"] + steps.get("checkpoint", 0.0)
        spans.append((end - sum(steps.values()), end))
    busy, reached = 0.0, float("-inf")
    for start, end in sorted(spans):
        busy += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return busy
