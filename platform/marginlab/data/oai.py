"""Knee radiographs of the Osteoarthritis Initiative, one knee per file.

The raw folder holds ``ResizedImages/<ID>_<months>_..._<L|R>.<png|jpg|jpeg|tif|tiff|dcm|dicom>`` and, anywhere else below it
and in any case, the tables ``enrollees``, ``allclinical<visit>`` and ``kxr_sq_bu<visit>``, each as .txt, .csv or .sas7bdat.
"""

from __future__ import annotations

from pathlib import Path

import polars as pl

from marginlab.data.decode import DICOM_ENDINGS
from marginlab.data.raw import Problem, RawTable, find_table, leading_number, read_table
from marginlab.values import InputError, value

VISITS = {0: "00", 12: "01", 24: "03", 36: "05", 48: "06", 72: "08", 96: "10"}  # months: code in names and columns
IMAGES = "ResizedImages"
ENDINGS = (".png", ".jpg", ".jpeg", ".tif", ".tiff", *DICOM_ENDINGS)
TABLES = (".txt", ".csv", ".sas7bdat")  # the first that is there


@value
class OAI:
    """One record per image whose subject has a site and an age at that visit. Site ``test_site`` is the test split.

    Right knees are mirrored, so that all look like left ones. Centre crop of 700 pixels; mean and standard deviation as
    published with AdaTriplet.
    """

    test_site: str = "C"

    def read(self, root: Path) -> RawTable:
        images, problems = _images(root)
        sites = read_table(_table(root, "enrollees"), {"subject": "ID", "site": "V00SITE"}).unique("subject")
        months = sorted(images["months"].unique())
        ages = pl.concat([_ages(root, m) for m in months])
        grades = [_grades(root, m) for m in months]
        problems += [
            Problem(f"There is no table kxr_sq_bu{VISITS[m]}: images at month {m} have no grade.")
            for m, g in zip(months, grades, strict=True)
            if g is None
        ]
        rows = images.join(sites, on="subject", how="left").join(ages, on=["subject", "months"], how="left")
        rows = _keep(rows, pl.col("site").is_not_null() & (pl.col("site") != ""), "no site (V00SITE)", problems)
        rows = _keep(rows, pl.col("age").is_between(0, 120), "no age between 0 and 120 at that visit", problems)
        known = [g for g in grades if g is not None]
        if known:
            rows = rows.join(pl.concat(known), on=["subject", "months", "side"], how="left")
        rows = rows.with_columns(
            split=pl.when(pl.col("site") == self.test_site).then(pl.lit("test")).otherwise(pl.lit("train")),
            flip=pl.col("side") == "R",
        )
        return RawTable(rows, tuple(problems), crop=700, mean=(0.49961,), std=(0.30885,))


def _images(root: Path) -> tuple[pl.DataFrame, list[Problem]]:
    folder = root / IMAGES
    if not folder.is_dir():
        raise InputError(f"{root}: the folder {IMAGES} with the knee images is missing.")
    records, strange = [], []
    for file in sorted(folder.iterdir()):
        fields = file.stem.split("_")
        readable = file.suffix.lower() in ENDINGS and len(fields) >= 3 and fields[1].isdecimal()
        if readable and int(fields[1]) in VISITS and fields[-1].upper() in ("L", "R"):
            records.append((f"{IMAGES}/{file.name}", fields[0], int(fields[1]), fields[-1].upper()))
        else:
            strange.append(file.name)
    if not records:
        raise InputError(f"{folder}: no image is named <ID>_<months>_..._<L|R>.png (or .jpg, .tif, .dcm).")
    schema = {"path": pl.String, "subject": pl.String, "months": pl.Int64, "side": pl.String}
    months = ", ".join(map(str, VISITS))
    fault = f"left out: not named <ID>_<months>_..._<L|R>, with months among {months}"
    return pl.DataFrame(records, schema, orient="row"), [Problem.of(strange, "file", fault)] if strange else []


def _table(root: Path, name: str) -> Path:
    path = _found(root, name)
    if path is None:
        raise InputError(f"{root}: the table {name} ({', '.join(TABLES[:-1])} or {TABLES[-1]}) is missing.")
    return path


def _found(root: Path, name: str) -> Path | None:
    return find_table(root, [name + ending for ending in TABLES], skip=IMAGES)


def _ages(root: Path, months: int) -> pl.DataFrame:
    code = VISITS[months]
    table = read_table(_table(root, f"allclinical{code}"), {"subject": "ID", "age": f"V{code}AGE"})
    return table.select("subject", pl.lit(months, pl.Int64).alias("months"), leading_number("age")).unique("subject")


def _grades(root: Path, months: int) -> pl.DataFrame | None:
    """Kellgren-Lawrence grades. A knee has a row per reading project: its first graded one counts."""
    code = VISITS[months]
    path = _found(root, f"kxr_sq_bu{code}")
    if path is None:
        return None
    table = read_table(path, {"subject": "ID", "side": "SIDE", "grade": f"V{code}XRKL"})
    table = table.with_columns(leading_number("side"), leading_number("grade"))
    return (
        table.filter(pl.col("grade").is_between(0, 4), pl.col("side").is_between(1, 2))
        .unique(["subject", "side"], keep="first", maintain_order=True)
        .select(
            "subject",
            pl.lit(months, pl.Int64).alias("months"),
            pl.when(pl.col("side") == 1).then(pl.lit("R")).otherwise(pl.lit("L")).alias("side"),
            pl.col("grade").cast(pl.Int8),
        )
    )


def _keep(rows: pl.DataFrame, condition: pl.Expr, lacking: str, problems: list[Problem]) -> pl.DataFrame:
    condition = condition.fill_null(False)
    lost = rows.filter(~condition)["path"]
    if len(lost):
        problems.append(Problem.of(lost, "image", f"left out: {lacking}"))
    return rows.filter(condition)
