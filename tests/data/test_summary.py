"""Every frame of a dataset's page against counts made by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from marginlab.data import manifest as mf
from marginlab.data import summary

# subject, months, side, split, fold, age, grade; subject c is tested on
IMAGES: list[tuple[Any, ...]] = [
    ("a", 0.0, "L", "train", 0, 50.0, 0),
    ("a", 0.0, "R", "train", 0, 50.0, None),
    ("a", 12.0, "L", "train", 0, 51.0, 2),
    ("b", None, None, "train", 1, None, None),
    ("c", 0.0, "L", "test", None, 62.0, 1),
    ("c", 11.8, "L", "test", None, 63.0, 1),
    ("c", 12.2, "R", "test", None, 63.0, 4),
    ("c", 24.0, "R", "test", None, 64.0, 4),
    ("d", 24.0, "R", "test", None, 64.0, 0),  # no first visit: nothing to find
]


def manifest(images: list[tuple[Any, ...]] = IMAGES, label: str = "subject") -> pl.DataFrame:
    columns = ("subject", "months", "side", "split", "fold", "age", "grade")
    frame = pl.DataFrame(images, columns, orient="row")
    frame = frame.with_columns(role=pl.lit(None), view=pl.lit(None), site=pl.lit(None), channels=1)
    frame = frame.with_columns(role=mf.role(), label=mf.label(label)).with_row_index("row")
    return frame.select(pl.col(name).cast(kind) for name, kind in mf.SCHEMA.items())


def test_parts() -> None:
    rows = {r["part"]: list(r.values())[1:] for r in summary.overview(manifest()).iter_rows(named=True)}
    # images, subjects, labels, visits, gallery, query, other
    assert rows["train"] == [4, 2, 2, 2, 2, 1, 1]  # the image of unknown month is no visit
    assert rows["fold 0"] == [3, 1, 1, 2, 2, 1, 0] and rows["fold 1"] == [1, 1, 1, 0, 0, 0, 1]
    assert rows["fold 4"] == [0, 0, 0, 0, 0, 0, 0]
    assert rows["test"] == [5, 2, 2, 5, 1, 4, 0]
    assert rows["all"] == [9, 4, 4, 7, 3, 5, 1]
    assert list(rows) == list(summary.PARTS)


def test_values_by_part() -> None:
    sides = summary.by_value(manifest(), "side")
    assert sides.columns == ["side", *summary.PARTS]
    assert [r[:3] + r[-2:] for r in sides.rows()] == [("L", 2, 2, 2, 4), ("R", 1, 1, 3, 4), (None, 1, 0, 0, 1)]
    assert summary.by_value(manifest(), "grade")["grade"].to_list() == [0, 1, 2, 4, None]
    assert summary.by_value(manifest(), "grade")["all"].sum() == len(IMAGES)


def test_horizons_are_whole_months_and_say_what_can_be_found() -> None:
    assert summary.horizons(manifest()).rows() == [("12", 2, 1, 2), ("24", 2, 2, 1)]
    # Where sides are told apart, the right knee of c has no first visit.
    assert summary.horizons(manifest([i for i in IMAGES if i[2]], "subject-side")).rows() == [
        ("12", 2, 1, 1),
        ("24", 2, 2, 0),
    ]


def test_very_many_horizons_are_put_together_by_years() -> None:
    images = [("c", float(m), "L", "test", None, 60.0, 0) for m in range(60)]
    rows = summary.horizons(manifest(images)).rows()
    assert rows == [("0–11", 11, 1, 11), *((f"{y}–{y + 11}", 12, 1, 12) for y in (12, 24, 36, 48))]


def test_a_dataset_without_months_has_no_horizons() -> None:
    images = [(s, None, "L", split, fold, None, 1) for s, split, fold in (("a", "train", 0), ("b", "test", None))]
    assert len(summary.horizons(manifest(images))) == 0
    assert len(summary.months(manifest(images))) == len(summary.ages(manifest(images))) == 0


def test_histograms_are_shares_of_each_split_without_gaps() -> None:
    grades = summary.grades(manifest())
    assert grades.columns == ["name", "train", "test"]
    assert grades.rows() == [("0", 0.5, 0.2), ("1", 0.0, 0.4), ("2", 0.5, 0.0), ("3", 0.0, 0.0), ("4", 0.0, 0.4)]
    assert summary.ages(manifest()).rows()[0] == ("50–51", 1.0, 0.0)  # 50 to 64 in at most 14 bins
    months = summary.months(manifest())
    assert months["name"].to_list() == ["0", "3", "6", "9", "12", "15", "18", "21", "24"]
    assert months["train"].to_list() == [2 / 3, 0, 0, 0, 1 / 3, 0, 0, 0, 0]
    assert summary.images_per_subject(manifest()).rows() == [
        ("1", 0.5, 0.5),
        ("2", 0.0, 0.0),
        ("3", 0.5, 0.0),
        ("4", 0.0, 0.5),
    ]


def test_bins_are_few_and_hold_everything() -> None:
    rng = np.random.default_rng(0)
    for high in (1, 3, 13, 14, 15, 90, 414):
        ages = rng.integers(0, high + 1, 500).astype(float)
        images = [("a", 0.0, "L", "train", 0, age, 0) for age in ages]
        frame = summary.ages(manifest(images))
        assert 0 < len(frame) <= summary.BINS
        assert abs(frame["train"].sum() - 1) < 1e-12 and frame["test"].sum() == 0
