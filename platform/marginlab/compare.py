"""The declared contrast, answered: better, matches, worse or undecided, from the interval of the paired difference over seeds.

Arms share their confirmation seeds, so each seed gives one difference (first arm minus second). Search replicates share
the seeds too: they are averaged within a seed and do not count as more of them. What varies in the interval is the seed
alone: the test subjects and the configurations that the searches found are taken as given.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from scipy import stats

from marginlab.results import Results
from marginlab.scores import split_metric

LEVEL = 0.95
POWER = 0.8
MOST_SEEDS = 10_000  # beyond it nobody counts


@dataclass(frozen=True)
class Difference:
    """A paired difference: its mean, standard error and 95% t interval; None where one pair, or none, cannot tell."""

    n: int
    mean: float | None = None
    sd: float | None = None
    se: float | None = None
    low: float | None = None
    high: float | None = None

    @classmethod
    def of(cls, differences: Sequence[float]) -> Difference:
        n = len(differences)
        if n < 2:
            return cls(n, *(float(d) for d in differences))
        mean, sd = float(np.mean(differences)), float(np.std(differences, ddof=1))
        se = sd / math.sqrt(n)
        half = float(stats.t.ppf((1 + LEVEL) / 2, n - 1)) * se
        return cls(n, mean, sd, se, mean - half, mean + half)


@dataclass(frozen=True)
class Answer:
    """What a study says about its contrast on one dataset."""

    dataset: str
    first: str
    second: str
    metric: str  # test/map
    horizon: int | None  # months, None for all queries
    margin: float  # differences up to it were declared to be none
    difference: Difference
    verdict: str  # better, matches, worse, undecided: the first arm against the second
    needed: int | None = None  # seeds that would decide it, where undecided


def answers(results: Results) -> list[Answer]:
    """One per dataset, in the study's order; none where the study declared no contrast."""
    declared = results.study.comparison
    if declared.contrast is None:
        return []
    first, second = declared.contrast
    metric, horizon = split_metric(declared.primary)
    test = results.test().filter(pl.col("metric") == metric, pl.col("horizon").eq_missing(horizon))
    out = []
    for dataset in results.study.datasets:
        difference = Difference.of(paired(test.filter(pl.col("dataset") == dataset.name), first, second))
        verdict = judge(difference, declared.margin)
        needed = seeds_needed(difference, declared.margin) if verdict == "undecided" else None
        out.append(Answer(dataset.name, first, second, metric, horizon, declared.margin, difference, verdict, needed))
    return out


def paired(test: pl.DataFrame, first: str, second: str) -> list[float]:
    """First minus second per seed that both arms have, in seed order; replicates are averaged within a seed."""
    place = ["replicate", "seed_index"]
    sides = [test.filter(pl.col("arm") == arm).select(*place, "value") for arm in (first, second)]
    both = sides[0].join(sides[1], on=place, suffix="_second", maintain_order="left")
    differences = both.with_columns(difference=pl.col("value") - pl.col("value_second"))
    return (
        differences.group_by("seed_index", maintain_order=True)
        .agg(pl.col("difference").mean())
        .sort("seed_index")["difference"]
        .to_list()
    )


def judge(difference: Difference, margin: float) -> str:
    """``better``: the 95% interval lies above zero; ``matches``: above minus the margin; ``worse``: below zero.

    In this order. So *matches* says that the first arm is surely not worse by more than the margin, whatever its chance of
    being better.
    """
    if difference.low is None or difference.high is None:
        return "undecided"
    if difference.low > 0:
        return "better"
    if difference.low >= -margin:
        return "matches"
    return "worse" if difference.high < 0 else "undecided"


def seeds_needed(difference: Difference, margin: float) -> int | None:
    """The number of seeds (all of them, not further ones) that would decide, were the mean and spread as observed.

    A simple t power calculation: the smallest n with (t[0.975, n-1] + t[0.8, n-1]) sd / sqrt(n) <= d, which decides with a
    probability of about 80%. d is how far the mean lies from what it must be told from: above minus the margin (matches)
    or below zero (worse), whichever is further off. None without a spread, without a distance, or beyond 10,000 seeds.
    """
    if difference.sd is None or difference.mean is None:
        return None
    distance = max(difference.mean + margin, -difference.mean)
    if distance <= 0:
        return None
    n = np.arange(2, MOST_SEEDS + 1)
    reach = (stats.t.ppf((1 + LEVEL) / 2, n - 1) + stats.t.ppf(POWER, n - 1)) * difference.sd / np.sqrt(n)
    enough = np.flatnonzero(reach <= distance)
    return int(n[enough[0]]) if len(enough) else None


@dataclass(frozen=True)
class Resolution:
    """What ``n`` seeds can show, known before any is trained. None where nothing can be shown.

    ``shown`` and ``found`` are in standard deviations of the paired differences.
    """

    n: int
    p: float | None = None  # the least that an exact two-sided test of the differences' signs can give
    shown: float | None = None  # the least observed mean difference whose interval excludes zero
    found: float | None = None  # the true one that does so in four studies of five

    def scaled(self, sd: float) -> tuple[float, float] | None:
        """``shown`` and ``found`` in the metric's own units, for differences of this standard deviation."""
        return None if self.shown is None or self.found is None else (self.shown * sd, self.found * sd)


def resolution(seeds: int) -> Resolution:
    """p = 2 / 2^n: of all sign flips of n differences the observed one and its mirror image are the most extreme.

    shown = t[0.975, n-1] / sqrt(n), found = (t[0.975, n-1] + t[0.8, n-1]) / sqrt(n), as in :func:`seeds_needed`.
    """
    if seeds < 2:
        return Resolution(seeds)
    edge, beyond = (float(stats.t.ppf(q, seeds - 1)) for q in ((1 + LEVEL) / 2, POWER))
    return Resolution(seeds, 2.0 ** (1 - seeds), edge / math.sqrt(seeds), (edge + beyond) / math.sqrt(seeds))


def optimism(results: Results) -> pl.DataFrame:
    """Per search: the winner's value in the search minus the mean its configuration confirms, on the same folds and epoch.

    The best of many noisy values is too high. Columns: dataset, arm, replicate, search, confirmed, n (runs), optimism.
    """
    search, objective = results.study.search, results.study.search.objective
    epochs = results.epochs()
    rows = []
    for key in results.plan.searches():
        value = results.searches.get(str(key), {}).get("best")
        confirmed = epochs.filter(
            pl.col("kind") == "confirmation",
            pl.col("current"),
            pl.col("dataset") == key.dataset,
            pl.col("arm") == key.arm,
            pl.col("replicate") == key.replicate,
            pl.col("fold").is_in(list(search.folds)),
            pl.col("epoch") == search.max_epochs,
        )
        # The search's value is a mean over its folds: without all of them confirmed there is nothing to hold against it.
        whole = set(confirmed["fold"]) == set(search.folds) and objective in confirmed.columns
        mean = confirmed[objective].mean() if whole else None
        gap = value - mean if value is not None and mean is not None else None
        rows.append((key.dataset, key.arm, key.replicate, value, mean, len(confirmed) if whole else 0, gap))
    schema = {
        "dataset": pl.String,
        "arm": pl.String,
        "replicate": pl.Int64,
        "search": pl.Float64,
        "confirmed": pl.Float64,
        "n": pl.Int64,
        "optimism": pl.Float64,
    }
    return pl.DataFrame(rows, schema=schema, orient="row")
