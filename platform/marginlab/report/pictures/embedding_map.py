"""A map of test embeddings: their first two principal components, for a few subjects."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from markupsafe import Markup
from matplotlib.axes import Axes

from marginlab.report import figures
from marginlab.report.pictures.confirmed import SAME, Confirmed, Model
from marginlab.report.pictures.picture import Picture, sentences
from marginlab.report.words import percent
from marginlab.results import Results
from marginlab.values import InputError

SUBJECTS = 12
MOST = 20  # images drawn per subject
TITLE = "Map of embeddings"


@dataclass(frozen=True, eq=False)
class Map:
    """``frame``: subject (0 ..), months, x, y per image; ``share``: of the variance that the two axes hold."""

    frame: pl.DataFrame
    share: float


def picture(results: Results, confirmed: Confirmed) -> Picture:
    wanted = results.study.comparison.contrast or [a.name for a in results.study.arms][:2]
    maps = {arm: project(confirmed.first[arm]) for arm in wanted if arm in confirmed.arms}
    if not maps:
        raise InputError("No seed has test embeddings yet.")
    subjects = max(m.frame["subject"].n_unique() for m in maps.values())
    shares = ", ".join(f"{percent(m.share)} ({arm})" for arm, m in maps.items())
    graded = confirmed.same == SAME["grade"]
    what = "grade" if graded else "subject"
    of = {"subject": "subjects", "grade": "grades"}.get(confirmed.same, "sides of subjects")
    gone = [arm for arm in wanted if arm not in maps]
    caption = sentences(
        [
            f"Test images of the {subjects} {of} that have most, on the first two principal components of their own "
            f"embeddings, which hold {shares} of the variance: what lies apart here lies apart, what lies together may not.",
            f"Colour and shape: the {what}. "
            + ("" if graded else "Filled: the first visit; hollow: later ones. ")
            + f"A thread leads from each image to the middle of its {what}. {confirmed.whose()}",
            "Each arm has a space, and so axes, of its own.",
            f"{', '.join(gone)} has no seed with test embeddings." if gone else "",
        ]
    )
    panels = [(arm, Markup(drawing(m, f"Map of test embeddings, arm {arm}"))) for arm, m in maps.items()]
    return Picture(TITLE, caption, panels, legend=False)


def project(model: Model, subjects: int = SUBJECTS, most: int = MOST) -> Map:
    """The subjects with most images (equal ones by label), each with at most ``most`` of them, the earliest."""
    labels, counts = np.unique(model.label, return_counts=True)
    shown = labels[np.argsort(-counts, kind="stable")[:subjects]]
    by_subject = [np.flatnonzero(model.label == label) for label in shown]
    early = [rows[np.argsort(model.months[rows], kind="stable")][:most] for rows in by_subject]
    own = np.concatenate(early)
    points = model.embeddings[own].double().numpy()
    points = points - points.mean(axis=0)
    left, length, axes = np.linalg.svd(points, full_matrices=False)
    # The sign of a component means nothing: its largest coordinate is made positive, so that a page is drawn twice alike.
    sign = np.sign(axes[np.arange(len(axes)), np.abs(axes).argmax(axis=1)])
    flat = (left * length * sign)[:, :2]
    flat = np.pad(flat, ((0, 0), (0, 2 - flat.shape[1])))
    subject = np.repeat(np.arange(len(early)), [len(rows) for rows in early])
    frame = pl.DataFrame({"subject": subject, "months": model.months[own], "x": flat[:, 0], "y": flat[:, 1]})
    total = float((length**2).sum())
    return Map(frame, float((length[:2] ** 2).sum()) / total if total else 1.0)


def drawing(drawn: Map, label: str) -> str:
    with figures.axes("first component", "second component", size=(4.2, 3.6), whole=False) as (figure, ax):
        for (subject,), own in drawn.frame.partition_by("subject", as_dict=True, maintain_order=True).items():
            _subject(ax, own, int(subject))
        ax.set_aspect("equal", adjustable="datalim")
        ax.grid(visible=False)
        ax.tick_params(labelbottom=False, labelleft=False, length=0)
        return figures.as_svg(figure, label)


def _subject(ax: Axes, own: pl.DataFrame, index: int) -> None:
    colour, marker = figures.stand_in(index), figures.MARKERS[index % len(figures.MARKERS)]
    x, y = own["x"].to_numpy(), own["y"].to_numpy()
    threads = np.full((3 * len(x), 2), np.nan)
    threads[0::3], threads[1::3] = np.stack([x, y], axis=1), (x.mean(), y.mean())
    ax.plot(threads[:, 0], threads[:, 1], color=colour, linewidth=0.6, alpha=0.45)
    first = own["months"].to_numpy() == 0
    for at, fill in ((first, colour), (~first, "none")):
        ax.plot(x[at], y[at], marker, color=colour, markerfacecolor=fill, markersize=5, markeredgewidth=1.1)
