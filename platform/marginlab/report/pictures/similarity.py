"""How similar images of one subject and of different subjects are to a trained network, beside the margins it trained with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
from markupsafe import Markup
from matplotlib.axes import Axes

from marginlab.report import figures
from marginlab.report.pictures.confirmed import SAME
from marginlab.report.pictures.picture import Picture, sentences
from marginlab.results import Results
from marginlab.retrieval import unit
from marginlab.runs import read_embeddings
from marginlab.stored import visits
from marginlab.values import InputError

RUNS = 5  # confirmation runs per arm, evenly chosen
IMAGES = 800  # per run, of whole subjects, evenly chosen
FEW = 10  # labels: fewer are grades
BINS = 50  # over [-1, 1]
TITLE = "Similarity of positive and negative pairs"
WIDTH = 2 / BINS
PAIRS: dict[str, type[pl.DataType]] = {
    "arm": pl.String,
    "low": pl.Float64,  # of the bin, WIDTH wide
    "positive": pl.Float64,  # density, mean over runs: two images of one subject, from different visits
    "negative": pl.Float64,  # of different subjects
}
MARKS: dict[str, type[pl.DataType]] = {
    "arm": pl.String,
    "runs": pl.Int64,
    "positive": pl.Float64,  # mean similarity
    "negative": pl.Float64,
    "epsilon": pl.Float64,  # of the best epoch, mean over runs; null where the arm has none
    "beta": pl.Float64,
}
MEANS = ("train/sim_positive", "train/sim_negative")


def picture(results: Results, dataset: str) -> Picture:
    pairs, marks = distributions(results, dataset)
    if not len(pairs):
        raise InputError("No confirmation run has validation embeddings yet.")
    arms = [a.name for a in results.study.arms]
    same = SAME[results.study.dataset(dataset).label]
    over_time = means(results, dataset)
    caption = sentences(
        [
            f"Validation images at each run's best epoch, mean over {max(marks['runs'])} confirmation runs. In colour: two "
            f"images of one {same}, from different visits; dashed grey: of different ones. Dotted: beta. "
            "The bar with two ends: epsilon, the gap that training asks for, laid below the mean of the positive pairs. Margins belong to "
            "augmented training images, and need not stand where these images would put them.",
            "Embeddings are kept of the best epoch alone; of the other epochs the means over training batches are recorded, "
            "drawn last: positive pairs thick, negative ones thin."
            if len(over_time)
            else "Embeddings are kept of the best epoch alone.",
        ]
    )
    axis = span(pairs)
    panels = [
        (arm, Markup(drawing(pairs, marks, arms, arm, axis))) for arm in arms if arm in pairs["arm"].unique().to_list()
    ]
    if len(over_time):
        panels.append(("training batches over epochs, all arms", Markup(means_drawing(over_time, arms))))
    return Picture(TITLE, caption, panels)


def distributions(results: Results, dataset: str) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Densities (:data:`PAIRS`) and what is marked in them (:data:`MARKS`), of the arms that have validation embeddings."""
    runs = results.runs().filter(
        pl.col("dataset") == dataset,
        pl.col("kind") == "confirmation",
        pl.col("current"),
        pl.col("state") == "complete",
        pl.col("best_epoch").is_not_null(),
    )
    margins = _margins(results)
    pairs, marks = [], []
    for arm in results.study.arms:
        own = runs.filter(pl.col("arm") == arm.name).sort("replicate", "seed_index", "fold").partition_by("id")
        found = []
        for run in figures.thinned(own, RUNS):
            path = results.folder / run["folder"][0] / "embeddings" / "validation.parquet"
            if path.is_file():
                found.append((run["id"][0], run["best_epoch"][0], *_counts(path)))
        whole = [f for f in found if f[2].sum() and f[3].sum()]
        if not whole:
            continue
        density = [np.mean([f[i] / f[i].sum() / WIDTH for f in whole], axis=0) for i in (2, 3)]
        low = -1 + WIDTH * np.arange(BINS)
        pairs.append(
            pl.DataFrame({"arm": arm.name, "low": low, "positive": density[0], "negative": density[1]}, schema=PAIRS)
        )
        at = margins.join(
            pl.DataFrame([f[:2] for f in whole], schema=["id", "epoch"], orient="row"), on=["id", "epoch"]
        )
        centre = low + WIDTH / 2
        marks.append(
            {
                "arm": arm.name,
                "runs": len(whole),
                "positive": float(density[0] @ centre * WIDTH),
                "negative": float(density[1] @ centre * WIDTH),
                "epsilon": at["epsilon"].mean(),
                "beta": at["beta"].mean(),
            }
        )
    return (pl.concat(pairs) if pairs else pl.DataFrame(schema=PAIRS)), pl.DataFrame(marks, schema=MARKS)


def _margins(results: Results) -> pl.DataFrame:
    """Per run and epoch: epsilon and beta, null where not finite (a loss without such a margin)."""
    epochs = results.epochs()
    columns = []
    for name in ("epsilon", "beta"):
        recorded = f"margin/{name}"
        column = pl.col(recorded) if recorded in epochs.columns else pl.lit(None, dtype=pl.Float64)
        columns.append(pl.when(column.is_finite()).then(column).alias(name))
    return epochs.select("id", "epoch", *columns)


def _counts(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """How many positive and negative pairs fall into each bin, float64 [BINS] each. Every unordered pair counts once."""
    frame = pl.read_parquet(path)
    label = frame["label"].to_numpy()
    keep = _thinned(label)
    frame, label = frame.filter(pl.Series(keep)), label[keep]
    x = unit(read_embeddings(frame)).numpy()
    visit = visits(label, frame["months"].to_numpy())
    bins = np.clip(((x @ x.T + 1) / WIDTH).astype(np.int64), 0, BINS - 1)
    upper = np.triu(np.ones(bins.shape, dtype=bool), 1)
    same = label[:, None] == label[None, :]
    positive = upper & same & (visit[:, None] != visit[None, :])
    count = [np.bincount(bins[mask], minlength=BINS).astype(np.float64) for mask in (positive, upper & ~same)]
    return count[0], count[1]


def _thinned(label: np.ndarray) -> np.ndarray:
    """bool [n]: about IMAGES images, evenly chosen: whole subjects, so that pairs are left; where grades are few, images of each."""
    labels, of = np.unique(label, return_inverse=True)
    every = max(1, -(-len(label) // IMAGES))
    return np.asarray((np.arange(len(label)) if len(labels) < FEW else of) % every == 0)


def means(results: Results, dataset: str) -> pl.DataFrame:
    """Mean over confirmation runs of the similarity of training pairs: arm, epoch, positive, negative."""
    epochs = results.epochs()
    if not set(MEANS) <= set(epochs.columns):
        return pl.DataFrame(
            schema={"arm": pl.String, "epoch": pl.Int64, "positive": pl.Float64, "negative": pl.Float64}
        )
    own = epochs.filter(pl.col("dataset") == dataset, pl.col("kind") == "confirmation", pl.col("current"))
    own = own.filter(pl.all_horizontal(pl.col(name).is_finite() for name in MEANS))
    return (
        own.group_by("arm", "epoch")
        .agg(positive=pl.col(MEANS[0]).mean(), negative=pl.col(MEANS[1]).mean())
        .sort("arm", "epoch")
    )


def span(pairs: pl.DataFrame) -> tuple[float, float]:
    """The similarities that any arm has a density at worth drawing, for all panels of a dataset."""
    peak = max(float(pairs[kind].max() or 0.0) for kind in ("positive", "negative"))  # type: ignore[arg-type]
    seen = pairs.filter(pl.max_horizontal("positive", "negative") > 0.002 * peak)["low"]
    return float(seen.min()) - WIDTH, min(1.0, float(seen.max()) + 2 * WIDTH)  # type: ignore[arg-type]


def drawing(pairs: pl.DataFrame, marks: pl.DataFrame, arms: Sequence[str], arm: str, axis: tuple[float, float]) -> str:
    """One arm's densities as step lines."""
    index, own = arms.index(arm), pairs.filter(pl.col("arm") == arm)
    edges = np.append(own["low"].to_numpy(), own["low"][-1] + WIDTH)
    with figures.axes("similarity", "density", whole=False) as (figure, ax):
        colour = figures.stand_in(index)
        ax.stairs(own["positive"], edges, color=colour, fill=True, alpha=0.18)
        ax.stairs(own["positive"], edges, color=colour, linewidth=1.8)
        ax.stairs(own["negative"], edges, color=figures.INK, linewidth=1.2, linestyle=(0, (4, 2)), alpha=0.75)
        top = 1.22 * max(float(own[kind].max()) for kind in ("positive", "negative"))  # type: ignore[arg-type]
        _mark(ax, marks.filter(pl.col("arm") == arm).row(0, named=True), top, axis)
        ax.set_xlim(axis)
        ax.set_ylim(0, top)
        return figures.as_svg(figure, f"Densities of similarity of positive and negative pairs, arm {arm}")


def _mark(ax: Axes, marks: dict[str, float | None], top: float, axis: tuple[float, float]) -> None:
    beta, epsilon, positive = marks["beta"], marks["epsilon"], marks["positive"]
    if beta is not None and axis[0] <= beta <= axis[1]:
        ax.axvline(beta, ymax=0.86, color=figures.INK, linewidth=1.2, linestyle=(0, (1, 1.5)))
        ax.text(beta, 0.875 * top, f"β {beta:.2f}", ha="center", va="bottom", fontsize=10)
    if epsilon is not None and positive is not None:
        at = 0.84 * top if beta is None else 0.76 * top
        ax.plot([positive - epsilon, positive], [at, at], "|-", color=figures.INK, markersize=8, linewidth=1.2)
        ax.text(positive - epsilon / 2, at + 0.015 * top, f"ε {epsilon:.2f}", ha="center", va="bottom", fontsize=10)


def means_drawing(frame: pl.DataFrame, arms: Sequence[str]) -> str:
    with figures.axes("epoch", "mean similarity") as (figure, ax):
        for index, arm in enumerate(arms):
            own = frame.filter(pl.col("arm") == arm)
            own = own[:: max(1, -(-len(own) // figures.MOST_POINTS))]
            for kind, width in (("positive", 2.2), ("negative", 1.0)):
                ax.plot(
                    own["epoch"],
                    own[kind],
                    color=figures.stand_in(index),
                    linewidth=width,
                    linestyle=figures.line_style(index),
                    marker="." if len(own) == 1 else None,
                )
        return figures.as_svg(figure, "Mean similarity of training pairs over epochs, by arm")
