"""The headline figure: the best so far against epochs and seconds spent, an arm a line, with what is to be reached."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import polars as pl
from markupsafe import Markup
from matplotlib.axes import Axes

from marginlab import cost
from marginlab.report.figures import INK, MARKERS, as_svg, axes, line_style, stand_in, with_ids
from marginlab.report.pictures.picture import Picture, sentences
from marginlab.report.words import count, metric_name
from marginlab.results import Results

SIZE = (5.2, 3.5)  # inches
LETTER = (0.0135, 0.065)  # width and height of one of a label's letters, as shares of the axes


def drawings(results: Results) -> dict[str, Picture]:
    """By dataset; one without a trial that was completed is left out. Two panels, against epochs and against seconds."""
    frames = {against: cost.best_so_far(results, against) for against in ("epochs", "seconds")}
    spent, targets, device = cost.spent(results), cost.to_target(results), cost.unit(results)
    arms, out = [a.name for a in results.study.arms], {}
    for d, dataset in enumerate(results.study.datasets):
        here = {against: f.filter(pl.col("dataset") == dataset.name) for against, f in frames.items()}
        if here["epochs"].is_empty():
            continue
        levels = targets.filter(pl.col("dataset") == dataset.name, pl.col("target") == "best")
        defaults = {a: v[0] for a in arms if (v := cost.default_value(results, dataset.name, a)) is not None}
        first = spent.filter(pl.col("dataset") == dataset.name, pl.col("order") == 1)
        panels = []
        for against, frame in here.items():
            label = "epochs spent by a search" if against == "epochs" else f"{device} spent by a search"
            marks = {a: (_middle(first.filter(pl.col("arm") == a)[against]), v) for a, v in defaults.items()}
            svg = cost_panel(frame, arms, levels, marks, label, name_of(results.study.search.objective))
            panels.append(("", Markup(with_ids(svg, f"cost{d}-{against}-"))))
        out[dataset.name] = Picture(
            f"Best {name_of(results.study.search.objective)} so far against what it cost",
            caption(results, dataset.name, here["epochs"], spent),
            panels,
        )
    return out


def cost_panel(
    frame: pl.DataFrame,
    arms: Sequence[str],
    targets: pl.DataFrame,
    defaults: dict[str, tuple[float, float]],
    x: str,
    y: str,
) -> str:
    """One dataset, against epochs or seconds.

    Args:
        frame: ``cost.best_so_far``. targets: ``cost.to_target``, those to be drawn.
        defaults: by arm, where its published default stands: (what it cost, its value).
    """
    fresh = bool(frame["basis"].eq("fresh").any())
    with axes(x, y, size=SIZE, whole=False) as (figure, ax):
        for index, arm in enumerate(arms):
            for basis in ("search", "fresh"):
                curve = frame.filter(pl.col("arm") == arm, pl.col("basis") == basis)
                if len(curve):
                    _steps(ax, curve, index, basis, alone=not fresh)
            if arm in defaults:
                hollow: dict[str, Any] = {
                    "markerfacecolor": "none",
                    "markeredgewidth": 1.8,
                    "markersize": 10,
                    "linestyle": "none",
                }
                ax.plot(*([v] for v in defaults[arm]), marker=_marker(index), color=stand_in(index), **hollow)
        ax.set_xlim(left=0)
        _levels(ax, targets, arms, frame.filter(basis="fresh" if fresh else "search"))
        return as_svg(figure, f"{y}, best so far, against {x}, by arm")


def _steps(ax: Axes, curve: pl.DataFrame, index: int, basis: str, alone: bool) -> None:
    """A step function with a marker at each new value, and the band over replicates. Search values are faint."""
    spent, value = curve["spent"].to_list(), curve["value"].to_list()
    colour = stand_in(index)
    look: dict[str, Any] = {"color": colour, "linestyle": line_style(index), "drawstyle": "steps-post"}
    if basis == "search" and not alone:
        ax.plot(spent, value, alpha=0.45, linewidth=1.0, **look)
        return
    look |= {"alpha": 0.65, "linewidth": 1.7} if basis == "search" else {"linewidth": 2.3}
    changed = [0] + [i for i in range(1, len(value)) if value[i] != value[i - 1]]
    ax.plot(spent, value, marker=_marker(index), markevery=changed, markersize=5.5, **look)
    if curve["low"].null_count() == 0:
        ax.fill_between(spent, curve["low"], curve["high"], step="post", color=colour, alpha=0.16, linewidth=0)


def _levels(ax: Axes, targets: pl.DataFrame, arms: Sequence[str], curves: pl.DataFrame) -> None:
    """A dotted line per target, with its name where the fewest other lines are."""
    levels = targets.select("of", "level").unique(maintain_order=True)
    lines = [c.sort("spent").select("spent", "value").rows() for c in curves.partition_by("arm")]
    for arm, level in levels.iter_rows():
        ax.axhline(level, color=stand_in(arms.index(arm)), linewidth=1.2, linestyle=(0, (1, 2)))
        lines.append([(0.0, level)])
    (left, right), (low, high) = ax.get_xlim(), ax.get_ylim()
    for arm, level in levels.iter_rows():
        text = f"target: {arm}"
        wide, tall = LETTER[0] * len(text) * (right - left), LETTER[1] * (high - low)

        def crossed(side: str, below: bool, wide: float = wide, tall: float = tall, level: float = level) -> int:
            """How often another line runs through the name, were it here; outside the axes it must not be at all."""
            start = right - wide if side == "right" else left
            bottom, top = (level - tall, level) if below else (level, level + tall)
            outside = 1000 * (bottom < low or top > high)
            at = [start + wide * i / 20 for i in range(21)]
            values = [v for line in lines for x in at if (v := _at(line, x)) is not None and v != level]
            return sum(bottom <= v <= top for v in values) + outside

        places = [(side, below) for side in ("right", "left") for below in (True, False)]
        side, below = min(places, key=lambda place: crossed(*place))
        lines.append([(0.0, level - tall / 2 if below else level + tall / 2)])  # the next name stands elsewhere
        ax.annotate(
            text,
            (1.0 if side == "right" else 0.01, level),
            xycoords=("axes fraction", "data"),
            xytext=(0, -3 if below else 3),
            textcoords="offset points",
            ha=side,
            va="top" if below else "bottom",
            fontsize=9.0,
            color=INK,
        )


def _at(line: Sequence[tuple[float, float]], x: float) -> float | None:
    """The value of a step function; beyond its last step it is taken to go on."""
    return next((v for start, v in reversed(line) if start <= x), None)


def caption(results: Results, dataset: str, frame: pl.DataFrame, spent: pl.DataFrame) -> str:
    """What the lines are, what they are not, and how many searches stand behind them."""
    study = results.study
    if frame["basis"].eq("fresh").any():
        seeds = spent.filter(pl.col("dataset") == dataset, pl.col("seeds") > 0)["seeds"].to_list()
        least, most = min(seeds, default=0), max(seeds, default=0)
        of = str(least) if least == most else f"{least} to {most}"
        value = (
            f"Thick: the leading configuration trained again on fresh seeds (means of {of}). "
            "Faint: the value that the search saw, which is too high because it was chosen for being high."
        )
    else:
        value = (
            "These are values that the searches saw: chosen for being high, they are optimistic. "
            "Confirmation(defaults=True, incumbents=...) trains the leading configurations again on fresh seeds."
        )
    replicates = int(frame["replicates"].max() or 1)  # type: ignore[arg-type]
    band = (
        f"Lines are medians of {count(replicates, 'search replicate')}, bands their range."
        if replicates > 1
        else "Each arm was searched once: there is no band, and another search could have gone another way."
    )
    given = {found[1] for a in study.arms if (found := cost.default_value(results, dataset, a.name)) is not None}
    default = "" if not given else "Hollow: the published default, " + _whence(given)
    margin = f"Dotted: targets, the median final best of an arm less the margin of {study.comparison.margin:g}."
    costs = "Pruned and failed trials count as cost; training on fresh seeds does not."
    return sentences([value, band, margin, default, costs])


def _whence(given: set[str]) -> str:
    if given == {"fresh"}:
        return "on fresh seeds, where its one trial stands."
    return (
        "as its one trial had it."
        if given == {"search"}
        else "on fresh seeds where it was trained there, else as its trial had it."
    )


def name_of(objective: str) -> str:
    """``val/map`` in a figure's words."""
    return f"validation {metric_name('test/' + objective.removeprefix('val/'))}"


def _middle(values: pl.Series) -> float:
    return float(values.median() or 0.0)  # type: ignore[arg-type]


def _marker(index: int) -> str:
    return MARKERS[index % len(MARKERS)]
