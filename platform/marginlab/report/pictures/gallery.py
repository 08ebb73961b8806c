"""First matches, as in the paper's picture: a few queries, and what each arm takes for the same subject."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
from markupsafe import Markup

from marginlab.report.pictures.confirmed import Confirmed, Model
from marginlab.report.pictures.framed import Cell, arm_head, head, table, whole
from marginlab.report.pictures.images import Images
from marginlab.report.pictures.picture import Picture, sentences
from marginlab.report.words import number, percent
from marginlab.results import Results
from marginlab.values import InputError, stable_seed

QUERIES = 8  # columns
TITLE = "First matches"
MATCHES: dict[str, type[pl.DataType]] = {
    "query": pl.Int64,  # packed rows
    "months": pl.Int64,  # after the subject's first visit; null where unknown
    "arm": pl.String,
    "found": pl.Int64,  # the first match
    "right": pl.Boolean,
    "sim": pl.Float64,
    "answer": pl.Int64,  # the nearest right one
    "answer_rank": pl.Int64,  # 1 where the first match is right
    "answer_sim": pl.Float64,
}


def picture(results: Results, confirmed: Confirmed, images: Images) -> Picture:
    models = comparable(confirmed)
    queries, differ = chosen(list(models.values()), seed=stable_seed(results.study.seed, confirmed.dataset))
    frame = matches(models, queries)
    arms = [a.name for a in results.study.arms]
    shares = (f"{arm} {percent(float(np.mean(_right(m)[_matched(m)])))}" for arm, m in models.items())
    missing = [a for a in arms if a not in models]
    caption = sentences(
        [
            f"The query, and below it what each arm finds first in the gallery of {confirmed.gallery}. {confirmed.whose()}",
            f"✓ in green: the same {confirmed.same}. ✗ in orange: another one, and the rank of the nearest right one. Numbers: similarity.",
            f"In {differ} of the {len(queries)} columns the arms differ: such queries were looked for in every second column, "
            "the others are drawn by lot, over all horizons. Over all queries the first match is right for "
            + ", ".join(shares)
            + ".",
            f"Not shown: {', '.join(missing)}, without a tested seed." if missing else "",
        ]
    )
    return Picture(TITLE, caption, [("", drawing(frame, images, arms))], legend=False)


def comparable(confirmed: Confirmed) -> dict[str, Model]:
    """The arms' models, which must have seen the same images."""
    models = confirmed.first
    first = next(iter(models.values()), None)
    if first is None:
        raise InputError("No seed has test embeddings yet.")
    for arm, model in models.items():
        if not (np.array_equal(model.rows, first.rows) and np.array_equal(model.label, first.label)):
            raise InputError(f"The test embeddings of {arm} are of other images than those of {first.seed.arm}.")
    return models


def chosen(models: list[Model], n: int = QUERIES, *, seed: int = 0) -> tuple[list[int], int]:
    """Queries (places in the ranking) spread over the horizons, by months; and how many of them the arms differ in.

    Every second place prefers a query whose first match is right in one arm and wrong in another; what else is free is
    drawn by lot. No subject comes twice while there are others.
    """
    model = models[0]
    agree = np.sum([_right(m) for m in models], axis=0)
    differ = (agree > 0) & (agree < len(models))  # bool [Q]
    matched, months, subject = _matched(model), np.round(model.months[model.query]), model.label[model.query]
    horizons = np.unique(months[matched])
    if not len(horizons):
        raise InputError("No query of the test split has a right answer in the gallery.")
    rng, taken = np.random.default_rng(seed), np.zeros(len(months), dtype=bool)
    for place, at in enumerate(np.linspace(0, len(horizons) - 1, n).round().astype(int)):
        free = matched & ~taken
        for wish in (months == horizons[at], ~np.isin(subject, subject[taken]), differ | (place % 2 == 1)):
            free = free & wish if (free & wish).any() else free
        if free.any():
            taken[rng.choice(np.flatnonzero(free))] = True
    own = np.flatnonzero(taken)
    return own[np.argsort(months[own], kind="stable")].tolist(), int(differ[own].sum())


def matches(models: dict[str, Model], queries: list[int]) -> pl.DataFrame:
    """What each arm finds first for these queries, places in the ranking (:data:`MATCHES`)."""
    rows = []
    for q in queries:
        for arm, m in models.items():
            rank, answer = int(m.ranking.first()[q]), int(m.ranking.right[q])
            found = answer if rank == 1 else int(m.ranking.wrong[q])
            packed = m.rows[m.gallery]
            rows.append(
                {
                    "query": m.rows[m.query[q]],
                    "months": whole(m.months[m.query[q]]),
                    "arm": arm,
                    "found": packed[found],
                    "right": rank == 1,
                    "sim": m.sim(q, found),
                    "answer": packed[answer],
                    "answer_rank": rank,
                    "answer_sim": m.sim(q, answer),
                }
            )
    return pl.DataFrame(rows, schema=MATCHES)


def drawing(frame: pl.DataFrame, images: Images, arms: list[str]) -> Markup:
    """A column per query, a row per arm."""
    queries = list(frame.unique("query", maintain_order=True).iter_rows(named=True))
    heads = [head(f"query {i}", q["months"]) for i, q in enumerate(queries, 1)]
    rows = [("query", [Cell(images.uri(q["query"]), f"query {i}") for i, q in enumerate(queries, 1)])]
    for index, arm in enumerate(arms):
        found = {r["query"]: r for r in frame.filter(pl.col("arm") == arm).iter_rows(named=True)}
        if found:
            cells = [_cell(found[q["query"]], images, f"{arm}, query {i}") for i, q in enumerate(queries, 1)]
            rows.append((arm_head(index, arm), cells))
    return table(heads, rows)


def _cell(row: dict[str, Any], images: Images, place: str) -> Cell:
    uri, sim = images.uri(row["found"]), number(row["sim"], 2)
    if row["right"]:
        return Cell(uri, f"{place}: the first match is right", True, sim)
    below = f"right: rank {row['answer_rank']}"
    return Cell(
        uri,
        f"{place}: the first match is wrong, the nearest right one has rank {row['answer_rank']}, "
        f"similarity {number(row['answer_sim'], 2)}",
        False,
        sim,
        below,
    )


def _right(model: Model) -> np.ndarray:
    """Whether the first match is right, bool [Q]; False for queries without any right one."""
    return np.asarray(model.ranking.first() == 1)


def _matched(model: Model) -> np.ndarray:
    return np.asarray(model.ranking.r > 0)
