"""A picture of embeddings, for a browser that cannot show Parquet: their two main directions, a colour and a star per label.

It is drawn from the embeddings, shows who resembles whom, and so goes only where they go.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

IMAGES = 400  # at most, of whole labels
_WIDTH, _HEIGHT, _BORDER = 720, 540, 40  # pixels
_COLOURS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#997700", "#004488")


def picture(parquet: Path) -> str:
    """SVG of the embeddings that :func:`marginlab.runs.write_embeddings` wrote.

    The labels with most images come first, up to 400 images. A star joins the images of a label to their mean: where the
    network keeps a label together, its star is small. The first eight labels are coloured.
    """
    frame = pl.read_parquet(parquet)
    shown = frame.join(_first(frame), on="label").sort("rank", "row")
    points, share = directions(np.stack(shown["embedding"].to_list()) if len(shown) else np.zeros((0, 2)))
    points = _scaled(points)
    body = []
    for (rank,), rows in shown.with_row_index("at").group_by("rank", maintain_order=True):
        own = points[rows["at"].to_numpy()]
        colour = _COLOURS[rank] if rank < len(_COLOURS) else "#999999"
        x, y = own.mean(axis=0)
        lines = "".join(f"M{x:.1f} {y:.1f}L{a:.1f} {b:.1f}" for a, b in own)
        dots = "".join(f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3.5"/>' for a, b in own)
        body.append(
            f'<g fill="{colour}" stroke="{colour}"><path d="{lines}" stroke-opacity=".4" fill="none"/>{dots}</g>'
        )
    text = (
        f"{len(shown)} of {len(frame)} images, {shown['label'].n_unique()} of {frame['label'].n_unique()} labels; two main "
        f"directions with {100 * share:.0f}% of the variance; lines join a label's images"
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" height="{_HEIGHT}">'
        f'<rect width="100%" height="100%" fill="#ffffff"/>{"".join(reversed(body))}'
        f'<text x="12" y="{_HEIGHT - 12}" font-family="sans-serif" font-size="13" fill="#333333">{text}</text></svg>'
    )


def directions(embeddings: np.ndarray) -> tuple[np.ndarray, float]:
    """Principal components of embeddings [n, D]: coordinates [n, 2] and the share of the variance that they hold.

    The sign is fixed (the largest coordinate is positive), so that a picture drawn twice is the same.
    """
    n, d = embeddings.shape
    if n < 2:
        return np.zeros((n, 2)), 1.0
    centred = embeddings.astype(np.float64) - embeddings.mean(axis=0)
    _, spread, axes = np.linalg.svd(centred, full_matrices=False)
    coordinates = np.zeros((n, 2))
    coordinates[:, : min(2, d)] = centred @ axes[:2].T
    sign = np.sign(coordinates[np.abs(coordinates).argmax(axis=0), [0, 1]])
    total = float((spread**2).sum())
    return coordinates * np.where(sign == 0, 1, sign), float((spread[:2] ** 2).sum()) / total if total else 1.0


def _first(frame: pl.DataFrame) -> pl.DataFrame:
    """The labels to draw, and their rank by number of images."""
    labels = frame.group_by("label").len().sort(["len", "label"], descending=[True, False]).with_row_index("rank")
    return labels.filter((pl.col("len").cum_sum() <= IMAGES) | (pl.col("rank") == 0)).select("label", "rank")


def _scaled(points: np.ndarray) -> np.ndarray:
    """Into the picture, with the same scale in both directions."""
    if not len(points):
        return points
    low, high = points.min(axis=0), points.max(axis=0)
    room = np.array([_WIDTH - 2 * _BORDER, _HEIGHT - 2 * _BORDER - 20])
    scale = (room / np.maximum(high - low, 1e-9)).min()
    offset = (np.array([_WIDTH, _HEIGHT - 20]) - scale * (high + low)) / 2
    return np.asarray(points * scale + offset)
