"""The queries that went most wrong: each beside the nearest wrong answer and the nearest right one."""

from __future__ import annotations

from typing import Any

import polars as pl
from markupsafe import Markup

from marginlab.report.pictures.confirmed import Confirmed, Model
from marginlab.report.pictures.framed import Cell, head, table, whole
from marginlab.report.pictures.images import Images
from marginlab.report.pictures.picture import Picture, sentences
from marginlab.report.words import number
from marginlab.results import Results
from marginlab.scores import worst_queries
from marginlab.values import InputError

QUERIES = 8
TITLE = "Worst queries"


def picture(results: Results, confirmed: Confirmed, images: Images) -> Picture:
    """Of the contrast's first arm, or of the study's first where no contrast was declared."""
    arm = (results.study.comparison.contrast or [a.name for a in results.study.arms])[0]
    if arm not in confirmed.arms:
        raise InputError(f"{arm} has no seed with test embeddings.")
    model = confirmed.first[arm]
    frame = worst(model)
    caption = sentences(
        [
            f"The {len(frame)} queries of the lowest average precision (AP) of {arm}, worst first. {confirmed.whose()}",
            "Green: the nearest right answer; orange: the nearest wrong one; ranks in the gallery of "
            + confirmed.gallery
            + ".",
            f"Looked for among one of every {model.every} queries." if model.every > 1 else "",
        ]
    )
    return Picture(TITLE, caption, [("", drawing(frame, images))], legend=False)


def worst(model: Model, n: int = QUERIES) -> pl.DataFrame:
    """:data:`marginlab.scores.WORST` with the months of each query."""
    frame = worst_queries(model.ranking, model.rows[model.query], model.rows[model.gallery], n)
    months = dict(zip(model.rows.tolist(), model.months.tolist(), strict=True))
    return frame.with_columns(months=pl.Series([whole(months[row]) for row in frame["query"]], dtype=pl.Int64))


def drawing(frame: pl.DataFrame, images: Images) -> Markup:
    rows = list(frame.iter_rows(named=True))
    numbered = list(enumerate(rows, 1))
    heads = [head(f"query {i}", r["months"]) for i, r in numbered]
    queries = [
        Cell(images.uri(r["query"]), f"worst query {i}", text=f"AP {number(r['value'], 2)}") for i, r in numbered
    ]
    wrong = [_found(r, i, images, right=False) for i, r in numbered]
    right = [_found(r, i, images, right=True) for i, r in numbered]
    return table(heads, [("query", queries), ("nearest wrong one", wrong), ("nearest right one", right)])


def _found(row: dict[str, Any], i: int, images: Images, *, right: bool) -> Cell:
    kind = "right" if right else "wrong"
    if row[kind] is None:
        return Cell(None)
    rank = row[f"{kind}_rank"]
    return Cell(images.uri(row[kind]), f"worst query {i}: the nearest {kind} one, rank {rank}", right, f"rank {rank}")
