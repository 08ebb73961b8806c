"""Slices of the search: the objective of every trial against each searched parameter."""

from __future__ import annotations

import math

import numpy as np
import polars as pl
from markupsafe import Markup
from matplotlib.axes import Axes

from marginlab.report import figures
from marginlab.report.pictures.picture import Picture, sentences
from marginlab.results import Results
from marginlab.space import Choice, RandInt, Uniform
from marginlab.values import InputError

POINTS = 200  # drawn per panel, evenly chosen
PANELS = 24  # per dataset
TITLE = "Slices of the search"


def picture(results: Results, frame: pl.DataFrame) -> Picture:
    """``frame``: the trials of a dataset (``searched.tried``)."""
    if not len(frame):
        raise InputError("No trial has ended yet, or the searches' record (optuna.db) was not copied along.")
    spaces = [(arm, path) for arm in results.study.arms for path in arm.space]
    axis, arms = figures.limits(frame["value"]), [a.name for a in results.study.arms]
    panels = []
    for arm, path in spaces[:PANELS]:
        own = frame.filter(pl.col("arm") == arm.name, pl.col("parameter") == path)
        if len(own):
            svg = drawing(own, arm.space[path], arms.index(arm.name), path, results.study.search.objective, axis)
            panels.append((arm.name, Markup(svg)))
    caption = sentences(
        [
            "A point per trial. Filled: complete; ×: pruned, at the value it had when it was stopped; ring: the arm's published "
            "default; star: the winner.",
            "Search replicates share a panel." if results.study.search.replicates > 1 else "",
            f"At most {POINTS} trials per panel are drawn." if _many(frame) else "",
            f"The first {PANELS} of {len(spaces)} panels." if len(spaces) > PANELS else "",
        ]
    )
    return Picture(TITLE, caption, panels, legend=False)


def _many(frame: pl.DataFrame) -> bool:
    return bool((frame.group_by("arm", "parameter").len()["len"] > POINTS).any())


def drawing(
    own: pl.DataFrame,
    allowed: Choice | Uniform | RandInt,
    index: int,
    path: str,
    objective: str,
    axis: tuple[float, float],
) -> str:
    """One parameter of one arm. ``own``: its rows of ``searched.tried``; ``index``: the arm's place in the study."""
    with figures.axes(path, objective, size=(4.2, 2.7), whole=isinstance(allowed, RandInt)) as (figure, ax):
        own = own.with_columns(x=_spread(own, allowed))
        kept = own.filter(pl.col("best") | (pl.col("trial") == 0))
        rest = own.filter(~pl.col("best"))
        points = _thinned(rest)
        colour = figures.stand_in(index)
        for state, style in (("pruned", {"marker": "x", "alpha": 0.85}), ("complete", {"marker": "o", "alpha": 0.8})):
            at = points.filter(pl.col("state") == state)
            ax.plot(at["x"], at["value"], color=colour, linestyle="", markersize=4, **style)  # type: ignore[arg-type]
        default, best = kept.filter(pl.col("trial") == 0), kept.filter(pl.col("best"))
        ax.plot(default["x"], default["value"], "o", color=figures.INK, markerfacecolor="none", markersize=10)
        ax.plot(best["x"], best["value"], "*", color=colour, markeredgecolor=figures.INK, markersize=11)
        _scale(ax, allowed)
        ax.set_ylim(axis)
        return figures.as_svg(figure, f"{objective} of each trial against {path}")


def _thinned(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.gather(np.linspace(0, len(rows) - 1, POINTS).round().astype(int)) if len(rows) > POINTS else rows


def _spread(own: pl.DataFrame, allowed: Choice | Uniform | RandInt) -> pl.Series:
    """Trials of one option stand beside one another, by their numbers, not on top."""
    if not isinstance(allowed, Choice):
        return own["at"].alias("x")
    golden = (math.sqrt(5) - 1) / 2
    return own["at"] + 0.5 * ((own["trial"] * golden) % 1 - 0.5)


def _decades(low: float, high: float) -> list[float]:
    """Powers of ten between two numbers, at most six; where there are less than two, the numbers themselves."""
    first, last = math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9)
    powers = [float(f"1e{p}") for p in range(first, last + 1)]
    return powers[:: -(-len(powers) // 6)] if len(powers) > 1 else [low, high]


def _scale(ax: Axes, allowed: Choice | Uniform | RandInt) -> None:
    if isinstance(allowed, Choice):
        options = [f"{o:g}" if isinstance(o, float) else str(o) for o in allowed.options]
        ax.set_xticks(range(len(options)), [o if len(o) <= 12 else o[:11] + "…" for o in options])
        ax.set_xlim(-0.5, len(options) - 0.5)
        ax.grid(axis="x", visible=False)
    elif isinstance(allowed, Uniform) and allowed.log:
        ax.set_xscale("log")
        ticks = _decades(allowed.low, allowed.high)
        ax.set_xticks(ticks, [f"{t:g}" for t in ticks])
        ax.minorticks_off()
        ax.set_xlim(allowed.low / 1.1, allowed.high * 1.1)
    else:
        pad = 0.04 * (allowed.high - allowed.low)
        ax.set_xlim(allowed.low - pad, allowed.high + pad)
