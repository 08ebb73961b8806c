"""Any dataset: a table with a row per image. CSV (comma, semicolon or tab) or Parquet, beside or above the images.

| column | |
|---|---|
| ``path`` | of the image, relative to the folder of the table |
| ``subject`` | whose image it is |
| ``months`` or ``date`` | since the subject's first visit; or the day (2019-05-31), from which months are counted |
| ``split`` | ``train`` or ``test``, the same for all images of a subject; without it, subjects are drawn |
| ``side``, ``view``, ``site``, ``age``, ``grade``, ``role``, ``flip`` | optional, as in ``raw.COLUMNS`` |

Other columns are passed over. First visits (month 0) are the gallery of the test protocol, later ones its queries.
"""

from __future__ import annotations

import csv
from pathlib import Path

import polars as pl

from marginlab.data.raw import COLUMNS, RawTable
from marginlab.data.splits import drawn_split
from marginlab.values import InputError, value

DAYS_PER_MONTH = 365.25 / 12
_TRUE, _FALSE = ("true", "1", "yes"), ("false", "0", "no", "")


@value
class Table:
    """Reads ``file`` in the raw folder."""

    file: str = "table.csv"
    test: float = 0.2  # share of the subjects that are drawn for the test split, where the table has no `split`
    channels: int = 1
    crop: int | None = None  # side of the centre crop in pixels
    mean: tuple = (0.5,)  # type: ignore[type-arg]  # per channel, of pixel / 255
    std: tuple = (0.5,)  # type: ignore[type-arg]

    def check(self) -> None:
        if not 0 < self.test < 1:
            raise InputError(
                f"Table.test is the share of subjects for the test split, between 0 and 1, not {self.test}."
            )
        if self.channels not in (1, 3):
            raise InputError(f"Table.channels must be 1 (grey) or 3 (colour), not {self.channels}.")
        for name in ("mean", "std"):
            if len(getattr(self, name)) not in (1, self.channels):
                raise InputError(f"Table.{name} needs one number, or one per channel ({self.channels}).")

    def read(self, root: Path) -> RawTable:
        path = root / self.file
        table = _read(path)
        for name in ("path", "subject"):
            if name not in table.columns:
                raise InputError(
                    f"{path}: the column {name!r} is missing; there are {', '.join(table.columns) or 'no columns'}."
                )
            if row := _first(table, pl.col(name).is_null()):
                raise InputError(f"{path}, row {row}: the field {name!r} is empty.")
        rows = table.select(
            "path",
            "subject",
            *(
                _parsed(table, path, name)
                for name in COLUMNS
                if name in table.columns and name not in ("path", "subject")
            ),
        )
        if "months" not in table.columns:
            rows = rows.with_columns(_months(table, path))
        if "split" not in table.columns:
            rows = rows.with_columns(split=drawn_split(table["subject"], self.test))
        mean, std = (tuple(v) * (self.channels if len(v) == 1 else 1) for v in (self.mean, self.std))
        return RawTable(rows, channels=self.channels, crop=self.crop, mean=mean, std=std)


def _read(path: Path) -> pl.DataFrame:
    """All columns as text, stripped, empty fields null."""
    if not path.is_file():
        raise InputError(f"There is no table {path}.")
    try:
        if path.suffix.lower() == ".parquet":
            table = pl.read_parquet(path)
            table = table.select(pl.col(n).cast(pl.String) for n in table.columns if not table[n].dtype.is_nested())
        else:
            table = pl.read_csv(path, separator=_separator(path), infer_schema=False)
        table = table.rename({n: n.strip().lower().removeprefix("\ufeff") for n in table.columns})
    except (pl.exceptions.PolarsError, UnicodeDecodeError) as e:
        raise InputError(f"{path}: the table cannot be read: {(str(e) or 'it is empty').splitlines()[0]}") from None
    text = pl.all().str.strip_chars()
    return table.with_columns(text).with_columns(pl.when(pl.all() != "").then(pl.all()))


def _separator(path: Path) -> str:
    with open(path, encoding="utf-8-sig", errors="replace", newline="") as file:
        head = file.readline()
    try:
        return csv.Sniffer().sniff(head, ",;\t").delimiter
    except csv.Error:
        return ","


def _parsed(table: pl.DataFrame, path: Path, name: str) -> pl.Expr:
    """A column in its type; or a sentence on the first field that is of another."""
    dtype = COLUMNS[name]
    if dtype == pl.String:
        return pl.col(name)
    if dtype == pl.Boolean:
        low = pl.col(name).fill_null("").str.to_lowercase()
        fine, parsed, kind = low.is_in([*_TRUE, *_FALSE]), low.is_in(_TRUE), "true or false"
    else:
        parsed = pl.col(name).cast(dtype, strict=False)
        fine = (parsed.is_finite().fill_null(False) if dtype.is_float() else parsed.is_not_null()) | pl.col(
            name
        ).is_null()
        kind = "a number" if dtype.is_float() else "a whole number"
    if row := _first(table, ~fine):
        raise InputError(f"{path}, row {row}: the field {name!r} must be {kind}, not {table[name][row - 1]!r}.")
    return parsed.alias(name)


def _months(table: pl.DataFrame, path: Path) -> pl.Series:
    """Months since a subject's first day, float."""
    if "date" not in table.columns:
        raise InputError(
            f"{path}: neither months nor date is there; give one of them, so that first visits and later ones are told apart."
        )
    day = table.with_columns(day=pl.col("date").str.slice(0, 10).str.to_date("%Y-%m-%d", strict=False))
    if row := _first(day, pl.col("day").is_null()):
        raise InputError(
            f"{path}, row {row}: the field 'date' must be a day such as 2019-05-31, not {table['date'][row - 1]!r}."
        )
    since = pl.col("day") - pl.col("day").min().over("subject")
    return day.select(months=since.dt.total_days() / DAYS_PER_MONTH)["months"]


def _first(table: pl.DataFrame, wrong: pl.Expr) -> int | None:
    """The first row, counted from 1, of which the expression is true."""
    rows = table.select(wrong.fill_null(False).arg_true())
    return int(rows.item(0, 0)) + 1 if len(rows) else None
