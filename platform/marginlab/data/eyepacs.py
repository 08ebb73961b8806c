"""Fundus photographs of EyePACS, as Kaggle's diabetic retinopathy competition distributes them.

The raw folder holds ``trainLabels.csv`` (columns ``image`` and ``level``) and, in itself or in one folder below it
(``train/``, ``resized_train/``, ...), the images ``<patient>_<left|right>.jpeg`` (or .jpg, .png). The resized copies fit,
too; ``trainLabels_cropped.csv`` is the table of the images in a folder whose name has "cropped" in it.
"""

from __future__ import annotations

import math
import os
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl

from marginlab.data.raw import Problem, RawTable, find_table, read_table
from marginlab.data.splits import drawn_split
from marginlab.values import InputError, value

TABLES = ("trainLabels.csv", "trainLabels_cropped.csv")
ENDINGS = (".jpeg", ".jpg", ".png")
GRADES = 5  # 0 none, 1 mild, 2 moderate, 3 severe, 4 proliferative retinopathy
_NAME = re.compile(r"(.+)_(left|right)", re.IGNORECASE)
_KEY = ["subject", "side"]


@value
class EyePACS:
    """One record per image that has a grade from 0 to 4; both eyes of a patient have the patient as their subject.

    The split is by patient. The published one is by image, and leaks: ``EyePACSByImage``.

    There are no dates, so months are unknown and nobody has a first visit and a later one: every image has the role
    "other". Fundus images are retrieved by grade: the label ``grade`` makes a gallery and queries of both splits.

    Pixels are used from 0 to 1 without normalisation, as published. Dark borders are cropped (``decode.trimmed``), and what
    is left is put on a black square, so that a round fundus stays round and in the middle however the camera framed it; on
    the resized and cropped copy, which was then resized as it is, that changes little.
    """

    test: float = 0.2  # share of the patients that are drawn for the test split
    trim: bool = True  # crop dark borders

    def check(self) -> None:
        if not 0 < self.test < 1:
            raise InputError(
                f"EyePACS.test is the share of patients for the test split, between 0 and 1, not {self.test}."
            )

    def read(self, root: Path) -> RawTable:
        rows, problems = _records(root)
        return _raw(rows.with_columns(drawn_split(rows["subject"], self.test)), problems, self.trim)


@value
class EyePACSByImage:
    """The same records split by image, as in the published code: 20% of the table's rows for testing.

    These are ``sklearn.model_selection.train_test_split(rows, test_size=0.2, random_state=11)``, without scikit-learn: of
    the permutation that the seed gives, the first 20%, rounded up. All rows of the table count, in its order, also those
    whose image is missing. The published lists are those of the resized copy with 35,108 rows (7,022 for testing); another
    table gives other lists.

    **It leaks.** Whoever has one eye in the test split mostly has the other in the training split: 5,692 of 6,359 test
    patients of the published lists. How many there are is counted, printed, and kept with the dataset. Folds of the training
    split are by patient all the same.
    """

    seed: int = 11
    trim: bool = True  # crop dark borders

    def read(self, root: Path) -> RawTable:
        rows, problems = _records(root)
        test = image_split(int(rows["rows"][0]), self.seed)[rows["position"].to_numpy()]
        rows = rows.with_columns(split=pl.when(pl.Series(test)).then(pl.lit("test")).otherwise(pl.lit("train")))
        return replace(_raw(rows, problems, self.trim), leaks=True)


def image_split(count: int, seed: int, share: float = 0.2) -> np.ndarray:
    """bool [count]: the test rows of scikit-learn's ``train_test_split``.

    Source: scikit-learn's ``_validate_shuffle_split`` (the test part is rounded up) and ``ShuffleSplit._iter_indices`` (it
    comes first). NumPy promises that ``RandomState`` stays as it is.
    """
    test = np.zeros(count, dtype=bool)
    test[np.random.RandomState(seed).permutation(count)[: math.ceil(share * count)]] = True
    return test


def _raw(rows: pl.DataFrame, problems: list[Problem], trim: bool) -> RawTable:
    rows = rows.drop("position", "rows").with_columns(role=pl.lit("other"))
    return RawTable(rows, tuple(problems), channels=3, trim=trim, mean=(0.0,) * 3, std=(1.0,) * 3)


def _records(root: Path) -> tuple[pl.DataFrame, list[Problem]]:
    """Images that have a grade, by path, with the position of their label among the rows of the table."""
    problems: list[Problem] = []
    labels = _labels(root, problems)
    images = _images(root, labels, problems)
    rows = images.join(labels, on=_KEY, how="inner")
    for lost, kind, fault, name in (
        (images.join(labels, on=_KEY, how="anti"), "image", "no label", "path"),
        (labels.join(images, on=_KEY, how="anti"), "label", "no such image", "image"),
        (rows.filter(pl.col("grade").is_null()), "image", "a grade other than 0, 1, 2, 3 and 4", "path"),
    ):
        if len(lost):
            problems.append(Problem.of(lost[name].sort(), kind, f"left out: {fault}"))
    rows = rows.filter(pl.col("grade").is_not_null()).drop("image").sort("path")
    if not len(rows):
        raise InputError(f"{root}: no image has a grade from 0 to {GRADES - 1}; the table and the images differ.")
    return rows, problems


def _labels(root: Path, problems: list[Problem]) -> pl.DataFrame:
    """Columns subject, side, image (as the table says), grade (null where it is none), position and rows of the table."""
    cropped = any("cropped" in folder.name.lower() for folder in root.iterdir() if folder.is_dir())
    path = find_table(root, TABLES[::-1] if cropped else TABLES)  # the resized copies come with both
    if path is None:
        raise InputError(f"{root}: the table {TABLES[0]} is missing.")
    table = read_table(path, {"image": "image", "level": "level"}).with_columns(pl.col("image").fill_null(""))
    named = [_parsed(image) for image in table["image"]]
    strange = [image for image, found in zip(table["image"], named, strict=True) if found is None]
    if strange:
        problems.append(Problem.of(strange, "label", "left out: of an image not named <patient>_<left|right>"))
    level = pl.col("level").cast(pl.Float64, strict=False)
    grade = pl.when(level.is_in([float(g) for g in range(GRADES)])).then(level.cast(pl.Int8, strict=False))
    table = table.select(
        pl.Series("subject", [found and found[0] for found in named], pl.String),
        pl.Series("side", [found and found[1] for found in named], pl.String),
        "image",
        grade.alias("grade"),
        pl.int_range(pl.len()).alias("position"),
        pl.len().alias("rows"),
    ).drop_nulls("subject")
    table = table.unique([*_KEY, "grade"], keep="first", maintain_order=True)
    twice = table.filter(pl.struct(_KEY).is_duplicated())
    if len(twice):
        names = twice["image"].unique(maintain_order=True)
        problems.append(Problem.of(names, "label", "left out: two grades for one image"))
    return table.filter(~pl.struct(_KEY).is_duplicated())


def _images(root: Path, labels: pl.DataFrame, problems: list[Problem]) -> pl.DataFrame:
    """Columns path, subject and side of the images in the one folder that holds images with labels."""
    records, strange = [], []
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        place = Path(folder).relative_to(root)
        for file in sorted(f for f in files if f.lower().endswith(ENDINGS) and not f.startswith(".")):
            if (found := _parsed(file)) is not None:
                records.append((place.as_posix(), (place / file).as_posix(), *found))
            else:
                strange.append((place / file).as_posix())
    if strange:
        problems.append(Problem.of(strange, "image file", "left out: not named <patient>_<left|right>"))
    schema = {name: pl.String for name in ("folder", "path", *_KEY)}
    images = pl.DataFrame(records, schema, orient="row")
    if not len(images):
        raise InputError(f"{root}: no image is named <patient>_<left|right>.jpeg (or .jpg, .png).")
    labelled = sorted(images.join(labels, on=_KEY, how="semi")["folder"].unique())
    if len(labelled) > 1:
        raise InputError(f"{root}: images of the table are in more than one folder ({', '.join(labelled)}); keep one.")
    other = images.filter(~pl.col("folder").is_in(labelled))["path"]
    if labelled and len(other):
        problems.append(Problem.of(other, "image file", "not used: in another folder"))
        images = images.filter(pl.col("folder").is_in(labelled))
    twice = images.filter(pl.struct(_KEY).is_duplicated())
    if len(twice):
        raise InputError(f"{root}: two files for one image, {twice['path'][0]} and {twice['path'][1]}; keep one.")
    return images.drop("folder")


def _parsed(name: str) -> tuple[str, str] | None:
    """Patient and side (L or R) of an image's name, with or without its ending."""
    stem, ending = os.path.splitext(name)
    found = _NAME.fullmatch(stem if ending.lower() in ENDINGS else name)
    return (found[1], found[2][0].upper()) if found else None
