"""Chest radiographs: ChestX-ray14 of the NIH Clinical Center.

The raw folder holds ``Data_Entry_2017_v2020.csv`` (or the older ``Data_Entry_2017.csv``), the official lists
``train_val_list.txt`` and ``test_list.txt``, and the images: in ``images_*/images/`` (as unpacked from Kaggle's archive),
``images_*/`` or ``images/`` (all twelve archives of the NIH unpacked in one place).
"""

from __future__ import annotations

import os
from pathlib import Path

import polars as pl

from marginlab.data.raw import Problem, RawTable, read_table
from marginlab.values import InputError, value

TABLES = ("Data_Entry_2017_v2020.csv", "Data_Entry_2017.csv")
IMAGES = "images"
LISTS = {"train": "train_val_list.txt", "test": "test_list.txt"}
LONGEST = 156  # months: as published, later images are neither gallery nor query (in this dataset, wrong ages)


@value
class CXR14:
    """One record per row of the data entry table that has an age and is in an official list.

    The table has no dates, only ages in whole years: months = 12 (age - age at the subject's first follow-up), which can
    be wrong by almost a year. Rows whose image file is missing stay in: ``prepare`` counts them as unreadable.
    """

    def read(self, root: Path) -> RawTable:
        table = next((root / name for name in TABLES if (root / name).is_file()), None)
        if table is None:
            raise InputError(f"{root}: the table {TABLES[0]} (or {TABLES[1]}) is missing.")
        columns = {"name": "Image Index", "visit": "Follow-up #", "subject": "Patient ID", "age": "Patient Age"}
        rows = read_table(table, {**columns, "view": "View Position"})
        rows = rows.with_columns(age=_years(), visit=pl.col("visit").cast(pl.Int64, strict=False))
        problems: list[Problem] = []
        rows = rows.join(_official_split(root), on="name", how="left")
        for faulty, fault in (
            (pl.col("split").is_null(), "in neither official list"),
            (~pl.col("age").is_between(0, 120).fill_null(False), "no age between 0 and 120"),
        ):
            lost = rows.filter(faulty)["name"]
            if len(lost):
                problems.append(Problem.of(lost, "image", f"left out: {fault}"))
            rows = rows.filter(~faulty)
        files = _files(root)
        first = pl.col("age").sort_by(pl.col("visit"), pl.col("age"), nulls_last=True).first().over("subject")
        rows = rows.with_columns(
            path=pl.col("name").replace_strict(files, default=None, return_dtype=pl.String),
            months=12 * (pl.col("age") - first),
            view=pl.when(pl.col("view").is_in(["AP", "PA"])).then("view"),
        ).with_columns(
            path=pl.coalesce("path", f"{IMAGES}/" + pl.col("name")),
            role=pl.when(~pl.col("months").is_between(0, LONGEST, closed="left")).then(pl.lit("other")),
        )
        odd = rows.filter(pl.col("role").is_not_null())["name"]
        if len(odd):
            fault = f"neither gallery nor query: months below 0 or from {LONGEST} on"
            problems.append(Problem.of(odd, "image", fault))
        extra = sorted(files.keys() - set(rows["name"]))
        if extra:
            problems.append(Problem.of(extra, "image file", "not used"))
        return RawTable(rows.drop("name", "visit"), tuple(problems))


def _years() -> pl.Expr:
    """Whole years. The older table writes 058Y, 009M or 011D."""
    number = pl.col("age").str.extract(r"^\s*0*(\d+)[YMD]?\s*$", 1).cast(pl.Float32)
    unit = pl.col("age").str.extract(r"([MD])\s*$", 1)
    return (
        pl.when(unit == "M")
        .then((number / 12).floor())
        .when(unit == "D")
        .then((number / 365).floor())
        .otherwise(number)
    )


def _official_split(root: Path) -> pl.DataFrame:
    parts = []
    for split, file in LISTS.items():
        if not (root / file).is_file():
            raise InputError(f"{root}: the official list {file} is missing.")
        lines = (root / file).read_text(encoding="utf-8-sig", errors="replace").splitlines()
        names = sorted({line.strip() for line in lines} - {""})
        parts.append(pl.DataFrame({"name": names}, {"name": pl.String}).with_columns(split=pl.lit(split)))
    both = parts[0].join(parts[1], on="name", how="semi")["name"]
    if len(both):
        raise InputError(f"{root}: {both[0]} is both in {LISTS['train']} and in {LISTS['test']}; restore the lists.")
    return pl.concat(parts)


def _files(root: Path) -> dict[str, str]:
    """{name: path relative to root} of the image files."""
    parts = sorted(root.glob("images_*"))
    found: dict[str, str] = {}
    for folder in (*parts, *(part / IMAGES for part in parts), root / IMAGES):
        place = folder.relative_to(root).as_posix()
        for name in sorted(os.listdir(folder)) if folder.is_dir() else ():  # Path objects would take ten times as long
            if name.lower().endswith(".png") and found.setdefault(name, f"{place}/{name}") != f"{place}/{name}":
                raise InputError(f"{root}: two files for one image, {found[name]} and {place}/{name}; keep one.")
    if not found:
        raise InputError(f"{root}: no images (.png) are in images/, images_*/images/ or images_*/.")
    return found
