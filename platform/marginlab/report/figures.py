"""Curves as SVG that takes its colours from the page, so that one drawing serves light and dark.

Matplotlib draws with stand-in colours, which are then replaced by the page's variables: ``--ink``, ``--grid`` and one per
arm. An arm keeps its colour, dash and marker in every figure: nothing is told by colour alone.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib
import polars as pl
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

COLOURS = 8  # of report/style.css: --arm-0 ... --arm-7; then they come again, with another dash and marker
DASHES = ("", "7 3", "2 2", "7 3 2 3", "4 2")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
GLYPHS = ("●", "■", "▲", "◆", "▼", "✚", "✖")
MOST_TRIALS = 60  # drawn per panel, evenly chosen: a page stays small
MOST_POINTS = 200  # per curve

INK, _GRID = "#000001", "#000002"
_STYLE: Any = {
    "svg.fonttype": "none",  # text stays text: small, searchable, in the page's own typeface
    "svg.hashsalt": "marginlab",
    "text.parse_math": False,
    "font.size": 11.0,
    "path.simplify": True,
    "axes.formatter.useoffset": False,  # a tick says its whole number
    **{name: INK for name in ("text.color", "axes.labelcolor", "xtick.color", "ytick.color", "axes.edgecolor")},
    "grid.color": _GRID,
    "axes.grid": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
}


def arm_colour(index: int) -> str:
    return f"var(--arm-{index % COLOURS})"


def dash(index: int) -> str:
    """As SVG's stroke-dasharray; empty for a solid line."""
    return DASHES[index % len(DASHES)]


def glyph(index: int) -> str:
    return GLYPHS[index % len(GLYPHS)]


def limits(values: pl.Series) -> tuple[float, float]:
    """An axis for all panels of a dataset."""
    low, high = (float(v) for v in (values.min() or 0.0, values.max() or 1.0))  # type: ignore[arg-type]
    pad = 0.05 * (high - low) or 0.05
    return low - pad, high + pad


def validation_panel(
    single: pl.DataFrame, mean: pl.DataFrame, arms: Sequence[str], arm: str, axis: tuple[float, float]
) -> str:
    """Validation mAP of one arm: its trials faint, confirmation runs thin, their mean thick; other arms' means in grey.

    Args:
        single: ``tables.single_curves`` of one dataset and metric. mean: ``tables.learning_curves`` likewise.
    """
    index = arms.index(arm)
    with axes("epoch", "validation mAP") as (figure, ax):
        for kind, opacity, width in (("trial", 0.22, 0.8), ("confirmation", 0.5, 0.9)):
            runs = single.filter(pl.col("arm") == arm, pl.col("kind") == kind).partition_by("id", maintain_order=True)
            for run in thinned(runs, MOST_TRIALS):
                _line(ax, run, "value", stand_in(index), alpha=opacity, linewidth=width)
        for other in (a for a in arms if a != arm):
            _line(ax, _whole(mean, other), "mean", INK, alpha=0.35, linewidth=1.1)
        _line(ax, _whole(mean, arm), "mean", stand_in(index), linewidth=2.4)
        ax.set_ylim(axis)
        return as_svg(figure, f"Validation mAP over epochs, arm {arm}")


def margin_panel(single: pl.DataFrame, mean: pl.DataFrame, arms: Sequence[str], label: str) -> str:
    """One margin of all arms over epochs: confirmation runs thin, their mean thick. Frames as for the validation panel."""
    with axes("epoch", label) as (figure, ax):
        for index, arm in enumerate(arms):
            runs = single.filter(pl.col("arm") == arm, pl.col("kind") == "confirmation").partition_by(
                "id", maintain_order=True
            )
            for run in thinned(runs, MOST_TRIALS):
                _line(ax, run, "value", stand_in(index), alpha=0.4, linewidth=0.8)
            _line(ax, _whole(mean, arm), "mean", stand_in(index), linewidth=2.2, linestyle=line_style(index))
        return as_svg(figure, f"{label} over epochs, by arm")


def horizon_panel(headline: pl.DataFrame, arms: Sequence[str], label: str) -> str:
    """A test metric by months between gallery and query image, mean and standard error. ``headline``: one dataset and metric."""
    months = headline["horizon"].unique(maintain_order=True).to_list()
    with axes("months from gallery to query image", label) as (figure, ax):
        for index, arm in enumerate(arms):
            frame = headline.filter(pl.col("arm") == arm)
            at = [
                months.index(h) + (index - (len(arms) - 1) / 2) * min(0.12, 0.6 / len(arms)) for h in frame["horizon"]
            ]
            bars = frame["se"].fill_null(0.0)  # a single seed has no bar
            colour, marker = stand_in(index), MARKERS[index % len(MARKERS)]
            ax.errorbar(at, frame["mean"], yerr=bars, fmt=marker, color=colour, markersize=5, elinewidth=1.3, capsize=4)
        ax.set_xticks(range(len(months)), ["all" if m is None else str(m) for m in months])
        ax.set_xlim(-0.5, len(months) - 0.5)
        ax.grid(axis="x", visible=False)
        return as_svg(figure, f"{label} by horizon, by arm")


@contextmanager
def axes(
    x: str, y: str, *, size: tuple[float, float] = (4.2, 2.9), whole: bool = True
) -> Iterator[tuple[Figure, Axes]]:
    """An empty panel to draw on, for :func:`as_svg`. Draw with :func:`stand_in` and :data:`INK` alone.

    Args:
        size: inches. whole: ticks of the horizontal axis stand at whole numbers.
    """
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasSVG(figure)
        ax = figure.add_subplot()
        ax.set_xlabel(x)
        ax.set_ylabel(y)
        ax.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=whole))
        ax.yaxis.set_major_locator(MaxNLocator(nbins=6))
        yield figure, ax


def _line(ax: Axes, frame: pl.DataFrame, column: str, colour: str, **style: object) -> None:
    every = max(1, -(-len(frame) // MOST_POINTS))
    points = pl.concat([frame[::every], frame[-1:]]) if every > 1 else frame
    # A line of one point is invisible: it becomes a dot.
    marker = "." if len(points) == 1 else None
    ax.plot(points["epoch"], points[column], color=colour, marker=marker, **style)  # type: ignore[arg-type]


def _whole(mean: pl.DataFrame, arm: str) -> pl.DataFrame:
    """The part of a mean curve in which all runs take part: where some have not got so far, it would jump."""
    curve = mean.filter(pl.col("arm") == arm)
    return curve.filter(pl.col("n") == pl.col("n").max()).sort("epoch")


def thinned(runs: list[pl.DataFrame], most: int) -> list[pl.DataFrame]:
    """At most ``most`` of them, evenly chosen."""
    return [runs[i * len(runs) // most] for i in range(most)] if len(runs) > most else runs


def stand_in(index: int) -> str:
    """The colour to draw an arm with, which :func:`as_svg` turns into the page's."""
    return f"#0000{16 + index % COLOURS:02x}"


def line_style(index: int) -> object:
    """An arm's dash, as matplotlib wants it."""
    lengths = tuple(float(x) / 2 for x in dash(index).split())
    return (0, lengths) if lengths else "-"


def as_svg(figure: Figure, label: str) -> str:
    """The drawing with the page's colours; ``label`` is what a screen reader says of it."""
    out = io.StringIO()
    figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    svg = out.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.S)
    svg = re.sub(r"<!--.*?-->", "", svg, flags=re.S)
    svg = re.sub(r'\b(?:d|x|y)="[^"]*"', lambda m: re.sub(r"(\.\d\d)\d+", r"\1", m[0]), svg)
    svg = re.sub(r"(font: [\d.]+px) [^;\"]*", r"\1 var(--type)", svg)
    svg = svg.replace(INK, "var(--ink)").replace(_GRID, "var(--grid)")
    for index in range(COLOURS):
        svg = svg.replace(stand_in(index), arm_colour(index))
    box = re.search(r'viewBox="[^"]*"', svg)
    assert box is not None  # matplotlib always writes one
    title = label.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
    return (
        f'<svg xmlns:xlink="http://www.w3.org/1999/xlink" role="img" aria-label="{title}" {box[0]}>'
        + svg[svg.index(">") + 1 :]
    )


def with_ids(svg: str, prefix: str) -> str:
    """Several drawings share one page: their ids must not."""
    svg = re.sub(r'\bid="', f'id="{prefix}', svg)
    return svg.replace("url(#", f"url(#{prefix}").replace('href="#', f'href="#{prefix}')
