"""Two arms side by side: the differences of their test figures on the searches, seeds and queries that both have."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import polars as pl

from marginlab.plan import SearchKey
from marginlab.results import Results
from marginlab.values import InputError

_TEST = "test/"


@dataclass(frozen=True)
class Grid:
    """Replicates and seeds of which both arms have every combination, and the pairs that are left out for it."""

    replicates: tuple[int, ...]
    seeds: tuple[int, ...]
    left_out: int = 0

    @classmethod
    def of(cls, pairs: Iterable[tuple[int, int]]) -> Grid:
        """The largest such grid, with two seeds at least where there is one: intervals need them."""
        there = set(pairs)
        seeds = {r: {s for q, s in there if q == r} for r in {r for r, _ in there}}
        ranked = sorted(seeds, key=lambda r: (-len(seeds[r]), r))
        best: tuple[set[int], list[int]] = (set(), [])
        for m in range(1, len(ranked) + 1):
            common = set.intersection(*(seeds[r] for r in ranked[:m]))
            if (len(common) > 1, len(common) * m, m) > (len(best[0]) > 1, len(best[0]) * len(best[1]), len(best[1])):
                best = (common, ranked[:m])
        common, chosen = best
        return cls(tuple(sorted(chosen)), tuple(sorted(common)), len(there) - len(common) * len(chosen))


@dataclass(frozen=True, eq=False)
class Paired:
    """First arm minus second. Without queries of their own (Q = 1) the figures stand for themselves, and no subject is drawn."""

    grid: Grid
    d: np.ndarray  # float64 [R, S, Q]
    subject: np.ndarray | None = None  # int64 [Q]; None: the figures of whole test sets


def pair(
    results: Results,
    dataset: str,
    first: str,
    second: str,
    metric: str,
    horizon: int | None,
    kind: str = "confirmation",
) -> Paired:
    """The differences of one figure, per query where it is a mean over queries whose embeddings (or scores) are kept.

    Args:
        metric, horizon: such as ``test/map`` and 12 (months), None for all queries.
        kind: of the runs, as in ``Results.test``.
    """
    figures = results.test(kind).filter(
        pl.col("dataset") == dataset, pl.col("metric") == metric, pl.col("horizon").eq_missing(horizon)
    )
    by_arm = [
        {(r, s): v for r, s, v in figures.filter(arm=arm).select("replicate", "seed_index", "value").iter_rows()}
        for arm in (first, second)
    ]
    grid = Grid.of(by_arm[0].keys() & by_arm[1].keys())
    cells = [(r, s) for r in grid.replicates for s in grid.seeds]
    frames = [_frames(results, dataset, arm, cells, kind) for arm in (first, second)]
    if not cells or any(f is None or metric.removeprefix(_TEST) not in f for both in frames for f in both):
        alone = [by_arm[0][c] - by_arm[1][c] for c in cells]
        return Paired(grid, np.array(alone, dtype=float).reshape(len(grid.replicates), len(grid.seeds), 1))
    kept = [f for both in frames for f in both if f is not None]
    place = kept[0].select("row", "subject", "months")
    if not all(f["row"].equals(place["row"]) for f in kept):
        raise InputError(
            f"The test embeddings of {first} and {second} on {dataset} are of different images: delete the run folders of "
            "the older ones and run again."
        )
    values = np.stack([f[metric.removeprefix(_TEST)].to_numpy() for f in kept])  # [2 x cells, queries]
    chosen = ~np.isnan(values).any(0)
    if horizon is not None:
        chosen &= np.round(place["months"].to_numpy()) == horizon
    d = values[: len(cells), chosen] - values[len(cells) :, chosen]
    shape = (len(grid.replicates), len(grid.seeds), -1)
    return Paired(grid, d.reshape(shape), place["subject"].to_numpy()[chosen])


def _frames(
    results: Results, dataset: str, arm: str, cells: list[tuple[int, int]], kind: str
) -> list[pl.DataFrame | None]:
    found = results.ensembles(kind)
    return [found.get((SearchKey(dataset, arm, r), s)) for r, s in cells]


def singles(
    results: Results,
    dataset: str,
    first: str,
    second: str,
    metric: str,
    horizon: int | None,
    kind: str = "confirmation",
) -> np.ndarray:
    """Differences of single models, float64 [J]: one per seed and fold that both arms have, replicates averaged."""
    figures = results.single_folds(kind).filter(
        pl.col("dataset") == dataset, pl.col("metric") == metric, pl.col("horizon").eq_missing(horizon)
    )
    place = ["replicate", "seed_index", "fold"]
    sides = [figures.filter(arm=arm).select(*place, "value") for arm in (first, second)]
    both = sides[0].join(sides[1], on=place, suffix="_second")
    means = both.group_by("seed_index", "fold").agg(d=(pl.col("value") - pl.col("value_second")).mean())
    return means.sort("seed_index", "fold")["d"].to_numpy()
