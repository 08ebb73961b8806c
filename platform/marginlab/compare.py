"""The declared contrast, answered: better, matches, worse or undecided, from the interval of the paired difference.

Arms share their confirmation seeds and their test queries, so each seed gives each query one difference (first arm minus
second); a seed's fold models are one ensemble. The interval is that of ``inference``: subjects, seeds and search replicates are
drawn anew, the same draw for both arms. With one replicate it holds for the configurations that the searches found; where the
queries' own figures are not there, for the test subjects as they are.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import polars as pl

from marginlab.difference import Difference, judge, seeds_needed
from marginlab.inference import DRAWS, LEVEL, holm
from marginlab.pairing import Paired, pair, singles
from marginlab.reach import POWER, Design, Resolution, resolution
from marginlab.results import Results
from marginlab.scores import split_metric
from marginlab.values import stable_seed

__all__ = [
    "LEVEL",
    "POWER",
    "Answer",
    "Design",
    "Difference",
    "Resolution",
    "answers",
    "exploratory",
    "judge",
    "optimism",
    "resolution",
    "seeds_needed",
    "single_folds",
]
EXPLORATORY = {
    "dataset": pl.String,
    "metric": pl.String,
    "horizon": pl.Int64,  # months; null for all queries
    "arm": pl.String,
    "reference": pl.String,
    "mean": pl.Float64,  # arm minus reference
    "low": pl.Float64,  # null for one seed
    "high": pl.Float64,
    "n": pl.Int64,  # seeds
}


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
    p_margin: float | None = None  # one-sided, of being worse by the margin or more: below 0.025 the arm matches
    holm: float | None = None  # the difference's p, adjusted for the number of datasets
    holm_margin: float | None = None  # p_margin, likewise
    check: Difference | None = None  # Nadeau and Bengio's interval from single models; n of them

    @property
    def conditional_on_searches(self) -> bool:
        """One replicate: the interval holds for the configurations found; other searches could have found others."""
        return self.difference.replicates == 1

    @property
    def stands(self) -> bool:
        """The verdict holds after Holm's adjustment too."""
        adjusted = 2 * self.holm_margin if self.verdict == "matches" and self.holm_margin is not None else self.holm
        return self.verdict != "undecided" and adjusted is not None and adjusted <= 1 - LEVEL


def answers(results: Results) -> list[Answer]:
    """One per dataset, in the study's order; none where the study declared no contrast."""
    declared = results.study.comparison
    if declared.contrast is None:
        return []
    first, second = declared.contrast
    metric, horizon = split_metric(declared.primary)
    out = []
    for dataset in results.study.datasets:
        place = (dataset.name, first, second, metric, horizon)
        difference = _measured(pair(results, *place), seed=stable_seed("bootstrap", results.study.seed, dataset.name))
        verdict = judge(difference, declared.margin)
        needed = seeds_needed(difference, declared.margin) if verdict == "undecided" else None
        if needed is not None:
            needed = max(needed, difference.n + 1)  # so many have just not decided it
        check = Difference.of_models(singles(results, *place))
        p_margin = difference.p_above(-declared.margin)
        out.append(Answer(*place, declared.margin, difference, verdict, needed, p_margin, check=check))
    return _adjusted(out)


def _measured(p: Paired, draws: int = DRAWS, seed: int = 0) -> Difference:
    return replace(Difference.measured(p.d, p.subject, draws, seed), left_out=p.grid.left_out)


def _adjusted(found: list[Answer]) -> list[Answer]:
    """With Holm's p over the datasets that have one."""
    known = [k for k, a in enumerate(found) if a.difference.p is not None]
    plain = holm([p for k in known if (p := found[k].difference.p) is not None])
    margin = holm([p for k in known if (p := found[k].p_margin) is not None])
    for k, a, b in zip(known, plain, margin, strict=True):
        found[k] = replace(found[k], holm=a, holm_margin=b)
    return found


def exploratory(results: Results, kind: str = "confirmation") -> pl.DataFrame:
    """Every arm against the contrast's second, on every metric and horizon (:data:`EXPLORATORY`): intervals without stars.

    Without a declared contrast the reference is the study's first arm. Each interval is as the answer's, and stands alone:
    one in twenty leaves out the truth.
    """
    study, test = results.study, results.test(kind)
    reference = study.comparison.contrast[1] if study.comparison.contrast else study.arms[0].name
    rows = []
    for dataset in study.datasets:
        cells = test.filter(dataset=dataset.name).select("metric", "horizon").unique(maintain_order=True)
        for metric, horizon in cells.iter_rows():
            for arm in (a.name for a in study.arms if a.name != reference):
                d = _measured(pair(results, dataset.name, arm, reference, metric, horizon, kind), draws=0)
                if d.mean is not None:
                    rows.append((dataset.name, metric, horizon, arm, reference, d.mean, d.low, d.high, d.n))
    return pl.DataFrame(rows, schema=EXPLORATORY, orient="row")


def single_folds(results: Results, kind: str = "confirmation") -> pl.DataFrame:
    """Single models beside their ensembles: dataset, arm, metric, horizon, mean, sd over models, n (models).

    They share training images and seeds: their spread over the root of n is no standard error.
    """
    groups = results.single_folds(kind).group_by("dataset", "arm", "metric", "horizon", maintain_order=True)
    return groups.agg(mean=pl.col("value").mean(), sd=pl.col("value").std(ddof=1), n=pl.len().cast(pl.Int64))


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
