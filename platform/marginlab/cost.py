"""What a search has reached against what it has spent, in epochs and in seconds of devices: frames and sentences.

The best of many noisy values is too high, and more so the more were tried. So each search's best trial so far (its leader) is
judged by what the same configuration gives on fresh seeds (``Confirmation.incumbents``), where all leaders of a dataset have
been trained again: the basis is then ``fresh``. Otherwise it is ``search``: the values that the leaders were chosen for.

All values are the search's objective, on the search's folds, at a trial's last epoch. A failed or pruned trial costs what it
trained and reaches nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import fmean, median
from typing import Any

import polars as pl

from marginlab.fresh import KINDS
from marginlab.plan import SearchKey
from marginlab.results import Results

KEPT = 2  # results whose numbers are kept: files are read once too, and two studies may be held against each other
Params = frozenset[tuple[str, Any]]  # of a trial, to be looked up by
SPENT = {
    "dataset": pl.String,
    "arm": pl.String,
    "replicate": pl.Int64,
    "order": pl.Int64,  # 1 for the trial that ended first
    "trial": pl.Int64,
    "state": pl.String,
    "epochs": pl.Int64,  # spent by the search when this trial ended
    "seconds": pl.Float64,  # likewise, in :func:`unit`
    "best": pl.Float64,  # of the values that the search has seen
    "leader": pl.Int64,  # the trial that has it
    "fresh": pl.Float64,  # the leader's mean on fresh seeds, null where it has none
    "seeds": pl.Int64,  # in that mean
    "honest": pl.Float64,  # by the basis; a leader that failed on fresh seeds is not believed, the one before it is
    "basis": pl.String,  # fresh or search
}
BEST = {
    "dataset": pl.String,
    "arm": pl.String,
    "basis": pl.String,
    "spent": pl.Float64,  # epochs or seconds of one search
    "value": pl.Float64,  # median over search replicates
    "low": pl.Float64,  # the least and the highest of them; null for one replicate, which has no band
    "high": pl.Float64,
    "replicates": pl.Int64,
}
TARGETS = {
    "dataset": pl.String,
    "target": pl.String,  # best: the median final best of an arm's searches, less the margin; default: its published default
    "of": pl.String,  # that arm
    "level": pl.Float64,
    "level_basis": pl.String,
    "arm": pl.String,  # who is to reach it
    "replicate": pl.Int64,
    "reached": pl.Boolean,  # False: right-censored, the costs are all that was spent
    "epochs": pl.Int64,
    "seconds": pl.Float64,
    "basis": pl.String,  # of what has reached it
}


@dataclass(frozen=True)
class _Trial:
    """One that has ended."""

    number: int
    state: str
    value: float | None  # None unless it is complete
    epochs: int
    seconds: float
    ended: float
    params: Params


@dataclass(frozen=True)
class _Fresh:
    """A configuration on fresh seeds: the mean over seeds, None where none of them ended well."""

    value: float | None
    seeds: int


@lru_cache(maxsize=KEPT)
def unit(results: Results) -> str:
    """Of the seconds: ``GPU-seconds`` (of each GPU in use) or ``CPU-seconds`` (of each thread), by what trials were trained on.

    ``seconds`` where it was not recorded, or not the same for all: then a second counts once, however many worked in it.
    """
    devices = set(results.runs().filter(pl.col("kind") == "trial")["device"].drop_nulls())
    return {("cuda",): "GPU-seconds", ("cpu",): "CPU-seconds"}.get(tuple(devices), "seconds")


@lru_cache(maxsize=KEPT)
def spent(results: Results) -> pl.DataFrame:
    """A row per trial that has ended, search by search, in the order in which they ended (:data:`SPENT`)."""
    rows: list[dict[str, Any]] = []
    found, again = _searches(results), _again(results)
    for key in results.plan.searches():
        basis = _basis(found, again, key.dataset)
        epochs, seconds, best, honest = 0, 0.0, None, None
        for order, t in enumerate(found.get(key, ()), 1):
            epochs, seconds = epochs + t.epochs, seconds + t.seconds
            if best is None or _leads(t, best):
                best = t if t.value is not None else best
            fresh = again.get((key.dataset, key.arm, best.params)) if best else None
            if best is not None:
                now = best.value if basis == "search" else fresh.value if fresh else None
                honest = honest if now is None else now
            row = {"order": order, "trial": t.number, "state": t.state, "epochs": epochs, "seconds": seconds}
            row |= {"best": best.value if best else None, "leader": best.number if best else None, "honest": honest}
            row |= {"fresh": fresh.value if fresh else None, "seeds": fresh.seeds if fresh else 0, "basis": basis}
            rows.append({**_place(key), **row})
    return pl.DataFrame(rows, schema=SPENT)


def best_so_far(results: Results, against: str = "epochs") -> pl.DataFrame:
    """What an arm has reached by what each of its searches has spent, a step function (:data:`BEST`): a row where it steps.

    The median is over search replicates, and begins where all of them have a value. A search that is not over ends the curve
    of its arm where it has got to; one that is over keeps its best.

    Args:
        against: ``epochs`` or ``seconds``.
    """
    frame, rows = spent(results), []
    for dataset in results.study.datasets:
        here = frame.filter(pl.col("dataset") == dataset.name)
        for arm in results.study.arms:
            searches = here.filter(pl.col("arm") == arm.name).partition_by("replicate", maintain_order=True)
            ends = [_end(results, s, against) for s in searches]
            bases = {"search": "best"} | ({"fresh": "honest"} if here["basis"].eq("fresh").any() else {})
            for basis, column in bases.items():
                curves = [list(s.select(against, column).iter_rows()) for s in searches]
                for at in sorted({float(x) for curve in curves for x, _ in curve if x <= min(ends)}):
                    values = [_at(curve, at) for curve in curves]
                    there = [v for v in values if v is not None]
                    if len(there) < len(values):
                        continue
                    band = (min(there), max(there)) if len(there) > 1 else (None, None)
                    rows.append((dataset.name, arm.name, basis, at, median(there), *band, len(there)))
    return pl.DataFrame(rows, schema=BEST, orient="row")


def to_target(results: Results) -> pl.DataFrame:
    """What each search spent until it reached each target (:data:`TARGETS`).

    Targets are those of the contrast's two arms, in both directions; of all arms where no contrast was declared. Whoever
    reaches the level of an arm's own best less the margin, or of its default, is every arm.
    """
    frame, rows = spent(results), []
    for dataset in results.study.datasets:
        here = frame.filter(pl.col("dataset") == dataset.name)
        for target, of, level, level_basis in _targets(results, here, dataset.name):
            for search in here.partition_by("arm", "replicate", maintain_order=True):
                at = search.filter(pl.col("honest") >= level)[:1]
                row = (at if len(at) else search[-1:]).row(0, named=True)
                place = (dataset.name, target, of, level, level_basis, row["arm"], row["replicate"])
                rows.append((*place, bool(len(at)), row["epochs"], row["seconds"], row["basis"]))
    return pl.DataFrame(rows, schema=TARGETS, orient="row")


def shares(results: Results) -> pl.DataFrame:
    """The contrast's first arm against its second, target by target: what each spent, and the first's share of the second's.

    A search that has not reached a target counts as beyond all that have, so the median over replicates may be censored. Then
    the share is a bound (``bound``: ``at most``, ``at least``; "" for a share as it is), or null where neither has got there.
    """
    contrast = results.study.comparison.contrast
    reached, rows = to_target(results), []
    for group in reached.partition_by("dataset", "target", "of", maintain_order=True) if contrast else ():
        sides = [group.filter(pl.col("arm") == arm) for arm in contrast or ()]
        if not all(len(side) for side in sides):
            continue
        row = group.select("dataset", "target", "of", "level", "level_basis", "basis").row(0, named=True)
        for cost in ("epochs", "seconds"):
            (first, there), (second, here) = (_median_cost(side, cost) for side in sides)
            bound = {(True, True): "", (True, False): "at most", (False, True): "at least"}.get((there, here))
            share = first / second if bound is not None and second else None
            row |= {f"first_{cost}": first, f"second_{cost}": second, f"{cost}_share": share, f"{cost}_bound": bound}
            row |= {"first_reached": there, "second_reached": here}
        rows.append(row)
    schema = {n: TARGETS[n] for n in ("dataset", "target", "of", "level", "level_basis", "basis")}
    schema |= {n: pl.Boolean for n in ("first_reached", "second_reached")}
    for cost in ("epochs", "seconds"):
        schema |= {n: pl.Float64 for n in (f"first_{cost}", f"second_{cost}", f"{cost}_share")}
        schema |= {f"{cost}_bound": pl.String}
    return pl.DataFrame(rows, schema=schema)


def sentences(results: Results) -> dict[str, list[str]]:
    """By dataset, what the first arm of the contrast took to get where the second got, the other way round, and the defaults."""
    out: dict[str, list[str]] = {d.name: [] for d in results.study.datasets}
    device = unit(results)
    for row in shares(results).iter_rows(named=True):
        out[row["dataset"]].append(sentence(row, results.study.comparison.contrast or (), device))
    return out


def sentence(row: dict[str, Any], contrast: Sequence[str], device: str) -> str:
    """Of a row of :func:`shares`: who reached what for how much, and where somebody did not."""
    first, second = contrast
    level = f"{row['level']:.3f}"
    if row["target"] == "best":
        what = f"the median final best of {row['of']} less the margin ({level})"
    else:
        trial = "" if row["level_basis"] == "fresh" else " in its one trial"
        what = f"the value of {row['of']}'s published default{trial} ({level})"
    by = "" if row["basis"] == "fresh" else ", by search values, which are optimistic"
    a, b = (f"{row[f'{side}_epochs']:.0f} epochs" for side in ("first", "second"))
    share = None if row["epochs_share"] is None else _times(row["epochs_share"], "epochs")
    if row["first_reached"] and row["second_reached"]:
        if row["seconds_share"] is not None:
            share = f"{share} and {_times(row['seconds_share'], device)}"
        return f"{first} reached {what} after {a}, {second} after {b}: {share}{by}."
    if row["first_reached"]:
        return f"{first} reached {what} after {a}, {second} not in {b}: at most {share}{by}."
    if row["second_reached"]:
        return f"{first} did not reach {what} in {a}, {second} did after {b}: at least {share}{by}."
    return f"Neither {first} (in {a}) nor {second} (in {b}) reached {what}{by}."


def _times(share: float, of: str) -> str:
    """``40% of the epochs``, ``2.5 times the epochs``."""
    return f"{share:.0%} of the {of}" if share < 1.995 else f"{share:.1f} times the {of}"


def default_value(results: Results, dataset: str, arm: str) -> tuple[float, str] | None:
    """What an arm's published default gives and whence: on fresh seeds, else in its trial; None where it was not completed."""
    default = _params(results.study.arm(arm).starts()[0])
    fresh = _again(results).get((dataset, arm, default))
    if fresh is not None and fresh.value is not None:
        return fresh.value, "fresh"
    for key, trials in _searches(results).items():
        if (key.dataset, key.arm) == (dataset, arm):
            for t in sorted(trials, key=lambda t: t.number):
                if t.params == default and t.value is not None:
                    return t.value, "search"
    return None


def _targets(results: Results, here: pl.DataFrame, dataset: str) -> Iterable[tuple[str, str, float, str]]:
    """(target, of which arm, level, its basis). ``here``: :func:`spent` of the dataset."""
    arms = results.study.comparison.contrast or [a.name for a in results.study.arms]
    # What the second arm reached is the question's own target, so it comes first.
    for arm in reversed(arms):
        finals = (
            here.filter(pl.col("arm") == arm).group_by("replicate").agg(pl.col("honest").last())["honest"].drop_nulls()
        )
        if len(finals):
            yield "best", arm, median(finals.to_list()) - results.study.comparison.margin, here["basis"][0]
    for arm in reversed(arms):
        default = default_value(results, dataset, arm)
        if default is not None:
            yield "default", arm, *default


def _median_cost(side: pl.DataFrame, cost: str) -> tuple[float, bool]:
    """Over replicates, those censored last; whether it is a cost that was enough. Of an even number the upper one of two."""
    rows = side.sort(pl.col("reached").not_(), cost)
    row = rows.row(len(rows) // 2, named=True)
    return float(row[cost]), bool(row["reached"])


def _end(results: Results, search: pl.DataFrame, against: str) -> float:
    """How far the curve of a search goes."""
    row = search.row(-1, named=True)
    found = results.searches.get(str(SearchKey(row["dataset"], row["arm"], row["replicate"])), {})
    rules = results.study.search
    over = not found.get("running", 0) and row["epochs"] + rules.trial_epochs > rules.epochs_budget
    return float("inf") if over else float(row[against])


def _at(curve: list[tuple[float, float | None]], at: float) -> float | None:
    """The last value of a step function up to ``at``."""
    return next((v for x, v in reversed(curve) if x <= at), None)


def _leads(t: _Trial, best: _Trial) -> bool:
    """As ``search.incumbents`` has it: of equals the earlier number."""
    assert best.value is not None  # only complete trials lead
    return t.value is not None and (t.value, -t.number) > (best.value, -best.number)


def _basis(found: dict[SearchKey, list[_Trial]], again: dict[tuple[str, str, Params], _Fresh], dataset: str) -> str:
    """``fresh`` where every leader of the dataset's searches was trained on fresh seeds, however that ended."""
    leaders = []
    for key, trials in found.items():
        best: _Trial | None = None
        for t in trials if key.dataset == dataset else ():
            if t.value is not None and (best is None or _leads(t, best)):
                best = t
                leaders.append((key.dataset, key.arm, t.params))
    return "fresh" if leaders and all(leader in again for leader in leaders) else "search"


@lru_cache(maxsize=KEPT)
def _searches(results: Results) -> dict[SearchKey, list[_Trial]]:
    """The trials of each search that have ended, in the order in which they did."""
    runs = results.runs().filter(pl.col("kind") == "trial")
    device = unit(results)
    shared = results.study.search.resources.gpus
    gpus = float(shared) if isinstance(shared, (int, float)) and shared > 0 else 1.0
    each = {"GPU-seconds": pl.col("workers") * gpus, "CPU-seconds": pl.col("workers") * pl.col("threads")}
    # A trial whose process was lost has no record of its own: it ran as the others did.
    times = each.get(device, pl.lit(1.0)).cast(pl.Float64)
    runs = runs.with_columns(cost=pl.col("seconds") * times.fill_null(times.max()))
    place = ["dataset", "arm", "replicate", "trial"]
    seconds = {
        row[:4]: row[4] for row in runs.group_by(place).agg(pl.col("cost").sum()).select(*place, "cost").iter_rows()
    }
    rows = list(results.trials().iter_rows(named=True)) or _from_runs(results, runs)
    out: dict[SearchKey, list[_Trial]] = {}
    for row in rows:
        if row["state"] != "unfinished":
            key = SearchKey(row["dataset"], row["arm"], row["replicate"])
            ended = row["ended"] if isinstance(row["ended"], float) else row["ended"].timestamp()
            value = row["value"] if row["state"] == "complete" else None
            cost = seconds.get((*row_place(row), row["trial"]), 0.0)
            params = _params(json.loads(row["params"]))
            out.setdefault(key, []).append(
                _Trial(row["trial"], row["state"], value, row["epochs"], cost, ended, params)
            )
    return {key: sorted(trials, key=lambda t: (t.ended, t.number)) for key, trials in out.items()}


def row_place(row: dict[str, Any]) -> tuple[str, str, int]:
    return row["dataset"], row["arm"], row["replicate"]


def _from_runs(results: Results, runs: pl.DataFrame) -> list[dict[str, Any]]:
    """Trials where the searches' own record did not come along: from the run folders of their folds."""
    finals = _finals(results)
    out = []
    for folds in runs.partition_by("dataset", "arm", "replicate", "trial", maintain_order=True):
        states = [s for s in ("unfinished", "failed", "pruned", "complete") if s in set(folds["state"])]
        values = [finals[i] for i in folds["id"] if i in finals]
        whole = len(values) == len(results.study.search.folds)
        row = folds.row(0, named=True)
        row |= {"state": states[0], "epochs": folds["epochs"].sum(), "ended": folds["ended"].max()}
        out.append({**row, "value": fmean(values) if whole else None})
    return out


@lru_cache(maxsize=KEPT)
def _finals(results: Results) -> dict[str, float]:
    """The objective at the search's last epoch, by run."""
    rules, epochs = results.study.search, results.epochs()
    if rules.objective not in epochs.columns:
        return {}
    last = epochs.filter(pl.col("epoch") == rules.max_epochs, pl.col(rules.objective).is_finite())
    return dict(last.select("id", rules.objective).iter_rows())


@lru_cache(maxsize=KEPT)
def _again(results: Results) -> dict[tuple[str, str, Params], _Fresh]:
    """Every configuration that was trained on fresh seeds, whatever for. A seed counts that has all folds of the search."""
    folds, finals = set(results.study.search.folds), _finals(results)
    seeds: dict[tuple[str, str, Params], dict[int, dict[int, float]]] = {}
    ended = results.runs().filter(pl.col("kind").is_in(KINDS), pl.col("current"), pl.col("fold").is_in(list(folds)))
    for row in ended.filter(pl.col("state") != "unfinished").iter_rows(named=True):
        there = seeds.setdefault((row["dataset"], row["arm"], _params(json.loads(row["params"]))), {})
        values = there.setdefault(row["seed"], {})
        if row["state"] == "complete" and row["id"] in finals:
            values[row["fold"]] = finals[row["id"]]
    out = {}
    for place, there in seeds.items():
        whole = [fmean(values.values()) for values in there.values() if values.keys() == folds]
        out[place] = _Fresh(fmean(whole) if whole else None, len(whole))
    return out


def _params(params: dict[str, Any]) -> Params:
    return frozenset(params.items())


def _place(key: SearchKey) -> dict[str, Any]:
    return {"dataset": key.dataset, "arm": key.arm, "replicate": key.replicate}
