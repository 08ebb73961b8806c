"""How much each searched parameter mattered, by Optuna's own evaluator (PED-ANOVA: Watanabe, Bansal and Hutter, 2023)."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import optuna
import polars as pl
from markupsafe import Markup
from optuna.importance import PedAnovaImportanceEvaluator

from marginlab.report import figures
from marginlab.report.pictures.picture import Picture, sentences
from marginlab.report.words import percent
from marginlab.results import Results
from marginlab.space import Choice
from marginlab.study import Arm
from marginlab.values import InputError

FEW = 20  # complete trials of a search: below, importances are noise
TOP = 5  # trials that "best" stands for, or a tenth of them where that is more: Optuna's advice
TITLE = "Importance of the searched parameters"
IMPORTANCE: dict[str, type[pl.DataType]] = {
    "arm": pl.String,
    "replicate": pl.Int64,
    "parameter": pl.String,
    "importance": pl.Float64,  # share, 1 over the parameters of a search
    "trials": pl.Int64,  # complete ones, which it is judged by
}


def picture(results: Results, trials: pl.DataFrame) -> Picture:
    """``trials``: those of a dataset (``searched.tried``)."""
    frame = importances(trials, results.study.arms)
    few = _few(trials, [a.name for a in results.study.arms if len(a.space) > 1])
    if not len(frame):
        raise InputError(few or "No arm searches more than one parameter.")
    caption = sentences(
        [
            "By PED-ANOVA, Optuna's default: how far the values of a search's best trials (at least "
            f"{TOP}, at least a tenth) differ from those of all its complete trials; shares of one.",
            "Bars: mean over search replicates; dots: each of them." if frame["replicate"].n_unique() > 1 else "",
            "Pruned trials take no part.",
            few,
        ]
    )
    arms = [a.name for a in results.study.arms]
    shown = [a for a in arms if a in frame["arm"].to_list()]
    return Picture(TITLE, caption, [(arm, Markup(drawing(frame, arms, arm))) for arm in shown], legend=False)


def _few(trials: pl.DataFrame, arms: Sequence[str]) -> str:
    """A sentence about arms whose searches have too few complete trials; empty where none has."""
    counts = []
    for arm in arms:
        own = trials.filter(pl.col("arm") == arm, pl.col("state") == "complete")
        most = max((g["trial"].n_unique() for g in own.partition_by("replicate")), default=0)
        if most < FEW:
            counts.append(f"{arm} {most}")
    return (
        f"Importance takes at least {FEW} complete trials of a search; there are: {', '.join(counts)}."
        if counts
        else ""
    )


def importances(trials: pl.DataFrame, arms: Sequence[Arm]) -> pl.DataFrame:
    """Of each search with enough complete trials and more than one parameter (:data:`IMPORTANCE`)."""
    rows = []
    for arm in arms:
        own = trials.filter(pl.col("arm") == arm.name, pl.col("state") == "complete")
        for search in own.partition_by("replicate", maintain_order=True):
            n = search["trial"].n_unique()
            if n >= FEW and len(arm.space) > 1:
                for path, share in _evaluated(search, arm, n).items():
                    rows.append((arm.name, search["replicate"][0], path, share, n))
    return pl.DataFrame(rows, schema=IMPORTANCE, orient="row")


def _evaluated(search: pl.DataFrame, arm: Arm, n: int) -> dict[str, float]:
    """In a study that lives in memory alone: the search's own storage is not touched."""
    spaces = {path: allowed.distribution() for path, allowed in arm.space.items()}
    study = optuna.create_study(direction="maximize", storage=None)
    for trial in search.partition_by("trial", maintain_order=True):
        values = dict(zip(trial["parameter"], trial["at"], strict=True))
        if values.keys() == spaces.keys():
            params = {path: _value(arm, path, at) for path, at in values.items()}
            study.add_trial(optuna.create_trial(params=params, distributions=spaces, value=trial["value"][0]))
    if len(study.get_trials(deepcopy=False)) < FEW:
        return {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the evaluator is experimental
        evaluator = PedAnovaImportanceEvaluator(target_quantile=max(0.1, TOP / n))
        found = optuna.importance.get_param_importances(study, evaluator=evaluator)
    return {path: float(found[path]) for path in spaces if path in found}


def _value(arm: Arm, path: str, at: float) -> object:
    """The inverse of ``searched.place``."""
    allowed = arm.space[path]
    if isinstance(allowed, Choice):
        return allowed.options[int(at)]
    return int(at) if isinstance(allowed.bounds()[0], int) and not hasattr(allowed, "log") else at


def drawing(frame: pl.DataFrame, arms: Sequence[str], arm: str) -> str:
    """Bars of one arm's parameters, the most important above."""
    own = frame.filter(pl.col("arm") == arm)
    mean = own.group_by("parameter", maintain_order=True).agg(pl.col("importance").mean()).sort("importance")
    names, colour = mean["parameter"].to_list(), figures.stand_in(arms.index(arm))
    with figures.axes("share", "", size=(4.2, 0.9 + 0.36 * len(names)), whole=False) as (figure, ax):
        ax.barh(range(len(names)), mean["importance"], color=colour, height=0.62, alpha=0.85)
        if own["replicate"].n_unique() > 1:
            ax.plot(own["importance"], [names.index(p) for p in own["parameter"]], "o", color=figures.INK, markersize=3)
        for y, share in enumerate(mean["importance"]):
            ax.text(1.02, y, percent(share), va="center", ha="left", clip_on=False)
        ax.set_yticks(range(len(names)), names)
        ax.set_xlim(0, 1)
        ax.set_axisbelow(True)
        ax.grid(axis="y", visible=False)
        return figures.as_svg(figure, f"Importance of parameters, arm {arm}: " + ", ".join(reversed(names)))
