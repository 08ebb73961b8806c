"""Who is trained on, validated on and tested on: always whole subjects, whatever the label is."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from marginlab.values import InputError, stable_seed

FOLDS = 5


def drawn_split(subjects: pl.Series, share: float) -> pl.Series:
    """``test`` for a share of the subjects. Whether one is drawn depends on its own identifier alone: more rows move nobody."""
    drawn = {s: stable_seed("test split", s) % 10_000 < share * 10_000 for s in subjects.unique()}
    return pl.Series("split", ["test" if drawn[s] else "train" for s in subjects])


def subject_folds(subjects: Sequence[str], count: int = FOLDS) -> np.ndarray:
    """Fold of each image, int8 [n]: subjects by falling number of images, each to the fold that has the fewest.

    This is scikit-learn's GroupKFold, but for one point: subjects with equally many images come in the order of their
    identifiers. There they come in the order of an unstable sort, which depends on the processor.
    """
    names, inverse, sizes = np.unique(np.asarray(subjects, dtype=str), return_inverse=True, return_counts=True)
    load = np.zeros(count, dtype=np.int64)
    fold = np.empty(len(names), dtype=np.int8)
    for group in np.argsort(-sizes, kind="stable"):
        fold[group] = np.argmin(load)
        load[fold[group]] += sizes[group]
    return fold[inverse]


def with_folds(rows: pl.DataFrame, place: str, leaks: bool = False) -> pl.DataFrame:
    """The records with a column ``fold``: 0..4 for the training split, null for the test split."""
    leak_check(rows, place, leaks)
    train = (rows["split"] == "train").to_numpy()
    subjects = rows.filter(pl.col("split") == "train")["subject"]
    if subjects.n_unique() < FOLDS:
        raise InputError(
            f"{place}: the training split has {subjects.n_unique()} subjects; {FOLDS} folds need at least {FOLDS}."
        )
    if train.all():
        raise InputError(f"{place}: the test split is empty; no image belongs to it.")
    fold = np.full(len(rows), -1, dtype=np.int8)
    fold[train] = subject_folds(subjects.to_list())
    rows = rows.with_columns(pl.Series("fold", fold)).with_columns(pl.col("fold").replace(-1, None))
    leak_check(rows, place, leaks)
    return rows


def leak_check(rows: pl.DataFrame, place: str, leaks: bool = False) -> None:
    """Refuse a subject whose images are on two sides of the test split (unless that ``leaks``), or in two folds (ever)."""
    for column in ("fold",) if leaks else ("split", "fold"):
        if column not in rows.columns:
            continue
        known = rows.drop_nulls(column)  # the test split has no fold
        sides = known.group_by("subject", maintain_order=True).agg(pl.col(column).unique(maintain_order=True))
        torn = sides.filter(pl.col(column).list.len() > 1)
        if len(torn):
            subject, values = torn.row(0)
            what = " and ".join(f"{column} {v}" for v in values)
            raise InputError(
                f"{place}: the subject {subject} is in {what} ({len(torn)} such subjects); "
                f"put all images of a subject in one {column}."
            )


def leak(rows: pl.DataFrame) -> dict[str, int]:
    """How much of the test split has its subject in the training split, too."""
    test, train = rows.filter(split="test"), rows.filter(split="train")
    known = test.join(train, on="subject", how="semi")
    return {
        "subjects": known["subject"].n_unique(),
        "test_subjects": test["subject"].n_unique(),
        "images": len(known),
        "test_images": len(test),
    }


def leak_sentence(found: dict[str, int]) -> str:
    return (
        f"The test split leaks: {found['subjects']} of its {found['test_subjects']} subjects are also in the training split, "
        f"so another image of the same subject is there for {found['images']} of its {found['test_images']} images."
    )
