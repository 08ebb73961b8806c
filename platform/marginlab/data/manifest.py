"""The table that every dataset becomes: one row per image of the store, without raw identifiers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import Any

import numpy as np
import polars as pl

from marginlab.data.splits import FOLDS, leak, leak_check
from marginlab.data.subset import LABELS
from marginlab.values import InputError

SCHEMA: dict[str, type[pl.DataType]] = {
    "row": pl.Int64,  # 0 .. N-1, the row of images.npy
    "subject": pl.String,  # keyed pseudonym
    "label": pl.String,  # what the network is to recognise: the subject, the subject's knee, or the grade
    "months": pl.Float32,  # since the subject's first visit
    "side": pl.String,
    "view": pl.String,
    "site": pl.String,
    "split": pl.String,
    "fold": pl.Int8,  # 0 .. 4, training split only
    "role": pl.String,  # in the test protocol: "gallery", "query", or "other" for neither (:func:`role`)
    "channels": pl.Int8,
    "age": pl.Float32,  # years
    "grade": pl.Int8,
}
ALLOWED = {
    "side": ("L", "R", None),
    "view": ("AP", "PA", None),
    "split": ("train", "test"),
    "role": ("gallery", "query", "other"),
    "fold": (*range(FOLDS), None),
}


def role(kind: str = "subject") -> pl.Expr:
    """What an image is in the test protocol of a dataset with this label.

    Where people are to be found: the role that a reader gave; otherwise month 0 is the gallery and later months are
    queries. Where grades are: the training split is the gallery, the test split asks, whatever reader and months say.
    """
    if kind == "grade":
        return pl.when(pl.col("split") == "train").then(pl.lit("gallery")).otherwise(pl.lit("query")).alias("role")
    months = pl.col("months")
    by_months = pl.when(months == 0).then(pl.lit("gallery")).when(months > 0).then(pl.lit("query"))
    return pl.coalesce(pl.col("role"), by_months, pl.lit("other"))


def label(kind: str) -> pl.Expr:
    if kind not in LABELS:
        raise InputError(f"There is no label {kind!r}; a label is {', '.join(LABELS[:-1])} or {LABELS[-1]}.")
    if kind == "grade":
        return pl.col("grade").cast(pl.String)
    return pl.col("subject") if kind == "subject" else pl.col("subject") + "-" + pl.col("side")


def validate(manifest: pl.DataFrame, place: str, known_leak: dict[str, Any] | None = None) -> None:
    """Refuse a table that is no manifest, in a sentence that names the place, the row and the field.

    known_leak: what dataset.json says of a split that leaks (``splits.leak``). That leak passes and no other.
    """
    for name, dtype in SCHEMA.items():
        if name not in manifest.columns:
            raise InputError(f"{place}: the column {name!r} is missing; prepare the dataset again.")
        if manifest[name].dtype != dtype:
            raise InputError(f"{place}: the column {name!r} is {manifest[name].dtype}, not {dtype.__name__}.")
    if len(manifest) == 0:
        raise InputError(f"{place}: the table has no rows.")
    twice = manifest.filter(pl.col("row").is_duplicated())
    if len(twice):
        raise InputError(f"{place}: two rows for image {twice['row'][0]}; keep one of them.")
    if manifest["row"].to_list() != list(range(len(manifest))):
        raise InputError(f"{place}: the rows are not numbered 0 to {len(manifest) - 1} in this order.")
    for name in ("subject", "label", "channels"):
        _refuse(manifest, pl.col(name).is_null(), name, "is empty", place)
    for name, values in ALLOWED.items():
        fine = pl.col(name).is_in([v for v in values if v is not None])
        fine = fine.fill_null(None in values)
        words = ", ".join("empty" if v is None else str(v) for v in values)
        _refuse(manifest, ~fine, name, f"must be one of {words}", place)
    wrong = (pl.col("split") == "test") == pl.col("fold").is_not_null()
    _refuse(manifest, wrong, "fold", "must be given for the training split and only there", place)
    leak_check(manifest, place, leaks=known_leak is not None)
    found = leak(manifest) if known_leak is not None else {}
    if any(not isinstance(known_leak, dict) or known_leak.get(name) != count for name, count in found.items()):
        raise InputError(f"{place}: its split leaks otherwise than dataset.json says; prepare the dataset again.")


def _refuse(manifest: pl.DataFrame, wrong: pl.Expr, name: str, rule: str, place: str) -> None:
    rows = manifest.filter(wrong)
    if len(rows):
        raise InputError(f"{place}, row {rows['row'][0]}: the field {name!r} {rule}, not {rows[name][0]!r}.")


def codes(values: Iterable[Any]) -> np.ndarray:
    """int64 [n]: 0, 1, ... in order of first appearance, so that names do not matter."""
    seen: dict[Any, int] = {}
    return np.array([seen.setdefault(v, len(seen)) for v in values], dtype=np.int64)


def dataset_fingerprint(
    pixels: np.ndarray, manifest: pl.DataFrame, mean: tuple[float, ...], std: tuple[float, ...]
) -> str:
    """Digest of all that decides what is learned and measured: pixels, grouping, time, roles, splits, folds.

    Pseudonyms count only by which rows share one: another key gives the same fingerprint.
    """
    digest = hashlib.sha256()
    digest.update(json.dumps([list(pixels.shape), list(mean), list(std)]).encode())
    for name in ("subject", "label"):
        digest.update(codes(manifest[name]).astype("<i8").tobytes())
    for name in ("split", "role", "fold", "side", "view"):
        digest.update(json.dumps(manifest[name].to_list()).encode())
    digest.update(manifest["months"].fill_null(float("nan")).to_numpy().astype("<f4").tobytes())
    for start in range(0, len(pixels), 256):
        digest.update(np.ascontiguousarray(pixels[start : start + 256]).tobytes())
    return digest.hexdigest()[:16]
