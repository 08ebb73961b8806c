"""A study's embeddings and rankings as a notebook wants them: behind ``Results.embeddings`` and ``Results.rankings``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import polars as pl

from marginlab.retrieval import Ranking
from marginlab.stored import Stored
from marginlab.values import InputError

if TYPE_CHECKING:
    from marginlab.results import Results

Split = Literal["test", "validation"]
SPLITS = ("test", "validation")


@dataclass(frozen=True, eq=False)
class Ranked:
    """One seed's ranking of the test split, its fold models as one ensemble."""

    dataset: str
    arm: str
    replicate: int
    seed_index: int
    ranking: Ranking  # ``ranking.per_query()``, ``ranking.worst()``, ``ranking.cmc(5)`` ...
    queries: pl.DataFrame  # row (of the packed dataset), label and months of each query, in the ranking's order
    gallery: pl.DataFrame  # the same of the gallery


def embeddings(results: Results, split: Split, **where: Any) -> pl.DataFrame:
    """One row per run and image: the run's labels, then row (of the packed dataset), label, months, embedding."""
    runs = selected(results, split, where)
    names = ["id", "kind", "dataset", "arm", "replicate", "trial", "seed_index", "fold"]
    frames = []
    for run in runs.iter_rows(named=True):
        path = results.folder / run["folder"] / "embeddings" / f"{split}.parquet"
        if path.exists():
            of = [pl.lit(run[name], dtype=runs.schema[name]).alias(name) for name in names]
            found = pl.read_parquet(path).select("row", "label", "months", pl.col("embedding").arr.to_list())
            frames.append(found.select(*of, pl.all()))
    if not frames:
        raise InputError(f"No run of {results.study.name} that fits {where or 'at all'} has {split} embeddings.")
    whole = pl.concat(frames)
    widths = whole["embedding"].list.len().unique().to_list()
    return whole.with_columns(pl.col("embedding").list.to_array(widths[0])) if len(widths) == 1 else whole


def rankings(results: Results, **where: Any) -> list[Ranked]:
    """By the published test protocol, one per dataset, arm, replicate and seed that has all its folds; in the study's order."""
    where = {"kind": "confirmation", "current": True, **where}
    runs = selected(results, "test", where).filter(state="complete")
    found = []
    for dataset in results.study.datasets:
        for arm in results.study.arms:
            own = runs.filter(dataset=dataset.name, arm=arm.name).sort("replicate", "seed_index", "fold")
            for group in own.partition_by("replicate", "seed_index", maintain_order=True):
                paths = [results.folder / folder / "embeddings" / "test.parquet" for folder in group["folder"]]
                if len(paths) < results.study.confirmation.folds or not all(p.exists() for p in paths):
                    continue
                stored = Stored.open(*paths)
                query, gallery = stored.roles("test")
                place = group.row(0, named=True)
                found.append(
                    Ranked(
                        dataset.name,
                        arm.name,
                        place["replicate"],
                        place["seed_index"],
                        stored.ranking("test"),
                        stored.frame.filter(query),
                        stored.frame.filter(gallery),
                    )
                )
    return found


def selected(results: Results, split: str, where: dict[str, Any]) -> pl.DataFrame:
    runs = results.runs()
    if split not in SPLITS:
        raise InputError(f"The split is 'test' or 'validation', not {split!r}.")
    unknown = [name for name in where if name not in runs.columns]
    if unknown:
        raise InputError(f"Runs have no {unknown[0]!r}; they have {', '.join(runs.columns)}.")
    return runs.filter(**where) if where else runs
