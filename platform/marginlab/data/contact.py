"""A contact sheet: a few subjects of a packed dataset and their visits, as thumbnails. For eyes: are these the right images?

Images of people: that is for the page of phantoms, and otherwise for a file of its own that its owner asked for (page.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from marginlab.data.packed import PackedDataset
from marginlab.data.thumbnail import data_uri
from marginlab.values import stable_seed

SUBJECTS, VISITS = 6, 8  # at most
SIDES = {"L": "left", "R": "right"}


@dataclass(frozen=True)
class Strip:
    """One subject, who has a number on the sheet and no name."""

    title: str
    rows: tuple[int, ...]  # of images.npy
    words: tuple[str, ...]  # below each image


def strips(dataset: PackedDataset) -> list[tuple[str, list[tuple[str, str]]]]:
    """By subject: a title, and of each image its data URI and what is said below it."""
    made = []
    for strip in chosen(dataset.manifest, stable_seed("contact sheet", dataset.fingerprint)):
        images = (data_uri(np.asarray(dataset.pixels[row])) for row in strip.rows)
        made.append((strip.title, list(zip(images, strip.words, strict=True))))
    return made


def chosen(manifest: pl.DataFrame, seed: int) -> list[Strip]:
    """Subjects drawn by lot, from those with three or more visits where there are enough; the same whatever their pseudonyms.

    Of each visit one image, all of the side that has most. Where months are unknown, every image counts as a visit.
    """
    months = pl.col("months").drop_nulls().n_unique()
    visits = manifest.group_by("subject", maintain_order=True).agg(pl.when(months > 0).then(months).otherwise(pl.len()))
    count = visits["months"].to_numpy()
    often = next(
        np.flatnonzero(count >= least) for least in (3, 2, 0) if least == 0 or (count >= least).sum() >= SUBJECTS
    )
    drawn = np.random.default_rng(seed).choice(often, min(SUBJECTS, len(often)), replace=False)
    subjects = [visits["subject"][int(i)] for i in sorted(drawn)]
    return [_strip(i, manifest.filter(pl.col("subject") == subject)) for i, subject in enumerate(subjects, 1)]


def _strip(number: int, images: pl.DataFrame) -> Strip:
    splits = images["split"].unique(maintain_order=True)
    title = f"Subject {number} ({f'{splits[0]} split' if len(splits) == 1 else 'in both splits'})"
    if images["months"].null_count() < len(images):
        sides = images.group_by("side", maintain_order=True).len().sort("len", descending=True, maintain_order=True)
        side = sides["side"][0]
        title += f", {SIDES[side]}" if side else ""
        images = images.filter(pl.col("side").eq_missing(side)).drop_nulls("months")
        images = images.unique("months", keep="first", maintain_order=True).sort("months")
    if len(images) > VISITS:  # the first, the last, and others evenly between
        images = images[np.linspace(0, len(images) - 1, VISITS).round().astype(int).tolist()]
    rows = list(images.iter_rows(named=True))
    return Strip(title, tuple(r["row"] for r in rows), tuple(_words(r) for r in rows))


def _words(row: dict[str, Any]) -> str:
    parts = []
    if row["months"] is not None:
        parts.append(f"{row['months']:.0f} months" if row["months"] else "first visit")
    elif row["side"] is not None:
        parts.append(SIDES[row["side"]])
    parts += [] if row["view"] is None else [row["view"]]
    parts += [] if row["grade"] is None else [f"grade {row['grade']}"]
    return ", ".join(parts)
