"""What a reader gives: one record per raw image, with raw identifiers. It never leaves ``prepare``.

A reader is a frozen value with one method, ``read(root) -> RawTable``; those that ship are listed in ``readers.py`` and
a user's own works alike.
"""

from __future__ import annotations

import csv
import os
import posixpath
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import polars as pl

from marginlab.values import InputError

# A reader must fill the first three; a column that it leaves out is unknown for every image (flip: false).
COLUMNS: dict[str, type[pl.DataType]] = {
    "path": pl.String,  # of the image, relative to the raw folder
    "subject": pl.String,  # raw identifier of the person
    "split": pl.String,  # "train" or "test"
    "months": pl.Float32,  # since the subject's first visit
    "side": pl.String,  # "L" or "R"
    "view": pl.String,  # "AP" or "PA"
    "site": pl.String,
    "age": pl.Float32,  # years, at the visit
    "grade": pl.Int8,  # Kellgren-Lawrence, or the fundus grade
    "role": pl.String,  # "gallery", "query" or "other"; unknown: the months decide (manifest.py)
    "flip": pl.Boolean,  # mirror the image when it is decoded (right knees)
}
REQUIRED = ("path", "subject", "split")
ALLOWED = {  # or unknown, but for the split
    "split": ("train", "test"),
    "side": ("L", "R"),
    "view": ("AP", "PA"),
    "role": ("gallery", "query", "other"),
}


@dataclass(frozen=True)
class Problem:
    """Something that a reader left out. The sentence is published with the dataset, so it must name no file and no
    person; the items (raw file names) stay in the local private file."""

    sentence: str
    items: tuple[str, ...] = ()

    @classmethod
    def of(cls, items: Iterable[str], kind: str, fault: str) -> Problem:
        """Several of a kind: "1 image is left out: ...", "2 images are left out: ..."."""
        items = tuple(items)
        return cls(f"1 {kind} is {fault}." if len(items) == 1 else f"{len(items)} {kind}s are {fault}.", items)


@dataclass(frozen=True)
class RawTable:
    """The records of a raw folder and how its images are to be decoded."""

    rows: pl.DataFrame  # COLUMNS
    problems: tuple[Problem, ...] = ()
    channels: int = 1  # 1: grey, 3: colour
    crop: int | None = None  # side of the centre crop in pixels, taken where both sides of an image are that long
    mean: tuple[float, ...] = (0.5,)  # per channel, of pixel / 255
    std: tuple[float, ...] = (0.5,)
    trim: bool = False  # crop dark borders before all else (decode.trimmed)
    leaks: bool = False  # subjects may be on both sides of the test split; how many are is kept with the dataset


class Reader(Protocol):
    def read(self, root: Path) -> RawTable: ...


def conform(rows: pl.DataFrame, place: str) -> pl.DataFrame:
    """The records with all COLUMNS, in their types, sorted by path; or a sentence on the first fault."""
    for name in REQUIRED:
        if name not in rows.columns:
            raise InputError(f"{place}: the column {name!r} is missing; a reader gives at least {', '.join(REQUIRED)}.")
    for name in rows.columns:
        if name not in COLUMNS:
            raise InputError(f"{place}: the column {name!r} is unknown; a reader's columns are {', '.join(COLUMNS)}.")
    unknown = [pl.lit(None).alias(name) for name in COLUMNS if name not in rows.columns]
    rows = rows.with_columns(unknown).select(*COLUMNS)
    for name, dtype in COLUMNS.items():
        try:
            rows = rows.with_columns(pl.col(name).cast(dtype))
        except pl.exceptions.PolarsError:
            raise InputError(
                f"{place}: the column {name!r} holds values that are no {dtype.__name__}; correct the reader."
            ) from None
    rows = rows.with_columns(pl.col("flip").fill_null(False), pl.col("months").fill_nan(None))
    for name in REQUIRED:
        if rows[name].null_count():
            row = rows[name].is_null().arg_max()
            raise InputError(f"{place}: record {row} has no {name}; give one or leave the record out.")
    rows = rows.with_columns(pl.Series("path", [posixpath.normpath(p) for p in rows["path"]], pl.String))
    twice = rows.filter(pl.col("path").is_duplicated())
    if len(twice):
        raise InputError(f"{place}: two records for one image, {twice['path'][0]}; keep one of them.")
    for name, values in ALLOWED.items():
        wrong = rows.filter(~pl.col(name).is_in(values))
        if len(wrong):
            raise InputError(
                f"{place}, image {wrong['path'][0]}: the field {name!r} must be one of {', '.join(values)}, "
                f"not {wrong[name][0]!r}."
            )
    return rows.sort("path")


def find_table(root: Path, names: Iterable[str], skip: str = "") -> Path | None:
    """The file of one of these names, in any case and folder below root but ``skip``; of several, the first name's."""
    wanted = [name.lower() for name in names]
    found: dict[str, list[Path]] = {name: [] for name in wanted}
    for folder, folders, files in os.walk(root):
        folders[:] = [f for f in folders if f != skip]
        for file in files:
            if file.lower() in found:
                found[file.lower()].append(Path(folder, file))
    for name in wanted:
        if len(found[name]) > 1:
            places = ", ".join(str(p.relative_to(root)) for p in sorted(found[name]))
            raise InputError(f"{root}: the table {name} is there more than once ({places}); keep one of them.")
        if found[name]:
            return found[name][0]
    return None


def read_table(path: Path, columns: Mapping[str, str]) -> pl.DataFrame:
    """Columns of a table as text, under new names: ``columns`` is {new name: name in the file, in any case}.

    The kind follows from the ending: .txt is separated by '|', .csv by ',', and .sas7bdat is SAS's.
    """
    header = _header(path)
    lower = [name.strip().lower() for name in header]
    indices = {}
    for new, name in columns.items():
        if name.lower() not in lower:
            raise InputError(f"{path}: the column {name} is missing; this does not look like the table it should be.")
        indices[new] = lower.index(name.lower())
    if path.suffix.lower() == ".sas7bdat":
        content, _ = _sas(path, usecols=[header[i] for i in indices.values()])
        frame = pl.DataFrame({new: [_text(v) for v in content[header[i]]] for new, i in indices.items()})
        if not len(frame):
            raise InputError(f"{path}: the table has no rows.")
        return frame.cast(pl.String)
    try:
        table = pl.read_csv(
            path,
            separator=_separator(path),
            infer_schema=False,
            encoding="utf8-lossy",
            truncate_ragged_lines=True,
        )
    except pl.exceptions.PolarsError as e:
        raise InputError(f"{path}: the table cannot be read: {str(e).splitlines()[0]}") from None
    if not len(table):
        raise InputError(f"{path}: the table has no rows.")
    return pl.DataFrame({new: table.to_series(i).str.strip_chars() for new, i in indices.items()})


def leading_number(name: str) -> pl.Expr:
    """The number that a text begins with ("1: Right" is 1), null where there is none (". : missing")."""
    return pl.col(name).str.extract(r"^\s*(\d+(?:\.\d+)?)", 1).cast(pl.Float32)


def _header(path: Path) -> list[str]:
    if path.suffix.lower() == ".sas7bdat":
        return list(_sas(path, metadataonly=True)[1].column_names)
    with open(path, encoding="utf-8-sig", errors="replace", newline="") as file:
        try:
            return next(csv.reader(file, delimiter=_separator(path)), [])
        except csv.Error as e:
            raise InputError(f"{path}: the table cannot be read: its first line has a {e}.") from None


def _sas(path: Path, **arguments: Any) -> tuple[dict[str, Any], Any]:
    """Columns by name, and what pyreadstat knows of them."""
    import pyreadstat  # only where such a file is read: it takes a second to import

    try:
        content: tuple[dict[str, Any], Any] = pyreadstat.read_sas7bdat(str(path), output_format="dict", **arguments)
    except Exception as e:  # damaged files end in many kinds
        raise InputError(f"{path}: the SAS table is damaged, or no SAS table: {e}") from None
    return content


def _separator(path: Path) -> str:
    return "," if path.suffix.lower() == ".csv" else "|"


def _text(v: object) -> str | None:
    """SAS has no integers: identifiers that are numbers arrive as floats, and a missing number as NaN."""
    if v is None or v != v:
        return None
    if isinstance(v, float) and v.is_integer():
        return str(int(v))
    return str(v).strip()
