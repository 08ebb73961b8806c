"""The models of a study's confirmation, as the test split saw them: one per seed, its fold models joined.

Shapes: ``n`` test images, ``Q`` queries, ``G`` gallery images, ``D`` embedding of the ensemble.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import polars as pl
from torch import Tensor

from marginlab.results import Results
from marginlab.retrieval import Ranking, concatenate
from marginlab.runs import read_embeddings, roles
from marginlab.stored import visits
from marginlab.values import InputError

MOST_PAIRS = 20_000_000  # of query and gallery image, compared per model: a second at D = 640


SAME = {"subject": "subject", "subject-side": "subject and side", "grade": "grade"}  # by the dataset's label


@dataclass(frozen=True)
class Seed:
    """Where a seed's test embeddings are: a file per fold."""

    arm: str
    replicate: int
    seed_index: int
    paths: tuple[Path, ...]


@dataclass(frozen=True, eq=False)
class Model:
    """The test embeddings of one seed, and who looks for whom. Queries are thinned out evenly where there are very many."""

    seed: Seed
    rows: np.ndarray  # int64 [n], of the packed dataset
    label: np.ndarray  # int64 [n]
    months: np.ndarray  # float32 [n]
    embeddings: Tensor  # float32 [n, D], of length 1
    query: np.ndarray  # int64 [Q], places among the n
    gallery: np.ndarray  # int64 [G]
    every: int  # one of so many queries is followed

    @classmethod
    def load(cls, seed: Seed) -> Model:
        frames = [_read(path) for path in seed.paths]
        row, label, months = (frames[0][name].to_numpy() for name in ("row", "label", "months"))
        for path, frame in zip(seed.paths, frames, strict=True):
            if not frame.select("row", "label").equals(frames[0].select("row", "label")):
                raise InputError(f"{path} and {seed.paths[0]} hold different images, or the same in another order.")
        query, gallery = map(np.flatnonzero, roles(frames[0]))
        every = max(1, -(-len(query) * len(gallery) // MOST_PAIRS))
        embeddings = concatenate([read_embeddings(f) for f in frames])
        return cls(seed, row, label, months, embeddings, query[::every], gallery, every)

    @cached_property
    def ranking(self) -> Ranking:
        """Under the test protocol."""
        if not len(self.query):
            raise InputError("The test split has no query, no image of a later visit.")
        visit = visits(self.label, self.months)
        q, g = self.query, self.gallery
        return Ranking.of(self.embeddings[q], self.embeddings[g], self.label[q], self.label[g], visit[q], visit[g])

    def sim(self, query: int, gallery: int) -> float:
        """Of a query and a gallery item, by their places in the ranking."""
        return float(self.embeddings[self.query[query]] @ self.embeddings[self.gallery[gallery]])


@dataclass(frozen=True, eq=False)
class Confirmed:
    """All seeds of one dataset whose folds are all there. Embeddings are read when they are asked for."""

    dataset: str
    same: str  # what two images of one label have in common (SAME)
    seeds: tuple[Seed, ...]  # in the order of the study's arms, then by replicate and seed

    @classmethod
    def of(cls, results: Results, dataset: str) -> Confirmed:
        runs = results.runs().filter(
            pl.col("dataset") == dataset,
            pl.col("kind") == "confirmation",
            pl.col("current"),
            pl.col("state") == "complete",
        )
        found = []
        for arm in results.study.arms:
            own = runs.filter(pl.col("arm") == arm.name).sort("replicate", "seed_index", "fold")
            for group in own.partition_by("replicate", "seed_index", maintain_order=True):
                paths = [results.folder / folder / "embeddings" / "test.parquet" for folder in group["folder"]]
                if len(paths) == results.study.confirmation.folds and all(p.is_file() for p in paths):
                    place = group.row(0, named=True)
                    found.append(Seed(arm.name, place["replicate"], place["seed_index"], tuple(paths)))
        return cls(dataset, SAME[results.study.dataset(dataset).label], tuple(found))

    @property
    def gallery(self) -> str:
        return "the training split" if self.same == SAME["grade"] else "first visits"

    @property
    def arms(self) -> list[str]:
        return list(dict.fromkeys(s.arm for s in self.seeds))

    @cached_property
    def first(self) -> dict[str, Model]:
        """By arm, the model of its first replicate and seed: the one that pictures are of."""
        chosen: dict[str, Seed] = {}
        for seed in self.seeds:
            chosen.setdefault(seed.arm, seed)
        return {arm: Model.load(seed) for arm, seed in chosen.items()}

    def whose(self) -> str:
        """Which models the pictures are of, in a sentence."""
        places = {(m.seed.replicate, m.seed.seed_index) for m in self.first.values()}
        folds = max((len(m.seed.paths) for m in self.first.values()), default=1)
        of = f"the {folds} fold models, joined, of" if folds > 1 else "the model of"
        if len(places) == 1:
            replicate, seed = places.pop()
            return f"Shown: {of} seed {seed}" + (f", search replicate {replicate}." if replicate else ".")
        return f"Shown: {of} each arm's first seed that is there."


def _read(path: Path) -> pl.DataFrame:
    try:
        return pl.read_parquet(path).select("row", "label", "months", "^role$", "embedding")
    except (OSError, pl.exceptions.PolarsError):
        raise InputError(f"{path}: these are no embeddings of a run, or the file is damaged.") from None
