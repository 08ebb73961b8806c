"""Ranking: for each query, at which places of its gallery the right answers stand. Every metric derives from it.

Exact. The similarity is the cosine, in float32 whatever the precision of the training. Shapes: ``Q`` queries, ``G`` gallery
items, ``D`` embedding, ``P`` positives of all queries.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, Literal

import numpy as np

from marginlab.retrieval import metrics, sums
from marginlab.retrieval.blocks import Found, find
from marginlab.retrieval.chance import KS
from marginlab.retrieval.embeddings import Embeddings, checked_unit
from marginlab.retrieval.gains import Graded, Scale
from marginlab.retrieval.matches import Matches
from marginlab.retrieval.streaming import Parts, find_in_parts
from marginlab.values import InputError

METRICS = ("map", "map_at_r", "cmc_1", "cmc_allshots_1")
AT_K = tuple(f"{kind}_{k}" for kind in ("mhr_at", "map_at") for k in KS)  # besides, where labels are grades


@dataclass(frozen=True)
class Figures:
    """Means over the queries of one group. A query without a match is counted, and left out of the means."""

    group: Any  # the value that its queries share; None: all queries, or those whose value is unknown
    queries: int
    unmatched: int
    means: dict[str, float]  # by metric; NaN where no query has one


@dataclass(frozen=True)
class Worst:
    """A query that went wrong, and what it found. Rows are those of the query and gallery embeddings; ranks begin at 1."""

    query: int
    value: float
    wrong: int | None  # gallery row of the nearest wrong answer; None: all that competed were right
    wrong_rank: int | None
    right: int  # gallery row of the nearest right answer
    right_rank: int


@dataclass(frozen=True, eq=False)
class Ranking:
    """The ranks of the positives of each query among the gallery items that are admissible for it.

    A positive is a gallery item of the query's label from another visit; items of the same label *and* the same visit
    (the query image itself among them) are not admissible: they are as if absent. A query without any positive counts
    in ``unmatched`` and in no mean. Items at equal similarity rank in gallery row order.
    """

    ranks: np.ndarray  # int16 or int32 [P], 1 is the nearest; ascending within a query
    offsets: np.ndarray  # int64 [Q + 1], query q owns ranks[offsets[q]:offsets[q + 1]]
    admissible: np.ndarray  # int64 [Q], gallery items that compete
    right: np.ndarray  # int64 [Q], gallery row of the nearest positive, -1 for a query without any
    wrong: np.ndarray  # int64 [Q], of the nearest other admissible item, -1 where there is none or no positive
    graded: Graded | None = None  # where relevance is graded

    def __post_init__(self) -> None:
        for f in fields(self):
            if f.name != "graded":
                getattr(self, f.name).setflags(write=False)

    @classmethod
    def of(
        cls,
        query: Embeddings,
        gallery: Embeddings,
        query_label: np.ndarray,
        gallery_label: np.ndarray,
        query_visit: np.ndarray | None = None,
        gallery_visit: np.ndarray | None = None,
        *,
        gain: np.ndarray | None = None,
        chunk: int | None = None,
        by: Literal["auto", "count", "sort"] = "auto",
    ) -> Ranking:
        """Rank ``gallery`` [G, D] for each row of ``query`` [Q, D], on the device where the embeddings are.

        Without visits nothing is excluded; to leave out the query's own image alone, give every image its own visit.

        Args:
            gain: for graded relevance, labels being 0 .. L-1: ``gain[query label, gallery label]``, float [L, L], is what
                an item is worth in :meth:`ndcg`. All other metrics know right and wrong alone. Takes Q x G bytes.
            chunk: queries compared at a time; by default what suits the device, and less where less memory is free.
            by: how ranks are found; by default what costs less. Neither changes the result, up to the rounding of the
                matrix product.
        """
        q, g = checked_unit(query, "query"), checked_unit(gallery, "gallery")
        _one_space(q.shape, g.shape[1])
        matches = _matches(len(q), query_label, query_visit, len(g), gallery_label, gallery_visit)
        scale = None if gain is None else Scale.of(gain, matches)
        return cls._from(
            find(q, g, matches, level=None if scale is None else scale.level, chunk=chunk, by=by), matches, scale
        )

    @classmethod
    def of_parts(
        cls,
        query: Embeddings,
        parts: Parts,
        query_label: np.ndarray,
        gallery_label: np.ndarray,
        query_visit: np.ndarray | None = None,
        gallery_visit: np.ndarray | None = None,
        *,
        gain: np.ndarray | None = None,
        positives: int | None = None,
    ) -> Ranking:
        """As :meth:`of`, with a gallery that does not fit in memory: ``parts()`` gives its rows anew, part after part.

        The labels of the whole gallery are in memory, its embeddings one part at a time. The gallery is read twice: once
        for the similarities of the positives, once to count what ranks before them.

        Args:
            parts: a function that returns an iterable of embeddings [g, D], which together are the G gallery rows.
            positives: followed at once, 32 bytes each; by default what a quarter of the free memory holds. Where there are
                more, the queries are taken in turns, and the gallery is read twice for each turn.
        """
        q = checked_unit(query, "query")
        matches = _matches(len(q), query_label, query_visit, len(gallery_label), gallery_label, gallery_visit)
        scale = None if gain is None else Scale.of(gain, matches)
        found = find_in_parts(q, parts, matches, level=None if scale is None else scale.level, positives=positives)
        return cls._from(found, matches, scale)

    @classmethod
    def _from(cls, found: Found, matches: Matches, scale: Scale | None) -> Ranking:
        offsets = np.concatenate([[0], np.cumsum(matches.count)])
        wrong = np.where(matches.count > 0, found.wrong, -1)
        graded = None
        if scale is not None and found.grade is not None:
            graded = Graded(found.grade, scale.count(matches), scale.gains)
        return cls(found.ranks, offsets, matches.admissible, found.right, wrong, graded)

    @classmethod
    def join(cls, rankings: Sequence[Ranking]) -> Ranking:
        """The queries of several rankings of one gallery, in their order."""
        if not rankings:
            raise InputError("Ranking.join needs at least one ranking.")
        graded = [one.graded for one in rankings if one.graded is not None]
        if graded and not all(
            one.graded is not None and np.array_equal(one.graded.gains, graded[0].gains) for one in rankings
        ):
            raise InputError("Ranking.join needs rankings with the same gains.")
        whole = None
        if graded:
            whole = Graded(
                np.concatenate([g.at for g in graded]), np.concatenate([g.count for g in graded]), graded[0].gains
            )
        return cls(
            np.concatenate([one.ranks for one in rankings]),
            np.concatenate([[0], np.cumsum(np.concatenate([one.r for one in rankings]))]),
            np.concatenate([one.admissible for one in rankings]),
            np.concatenate([one.right for one in rankings]),
            np.concatenate([one.wrong for one in rankings]),
            whole,
        )

    def __len__(self) -> int:
        return len(self.admissible)

    @property
    def r(self) -> np.ndarray:
        """R, the number of positives of each query: int64 [Q]."""
        return np.diff(self.offsets)

    @property
    def unmatched(self) -> int:
        """How many queries have no positive in their gallery."""
        return int((self.r == 0).sum())

    def select(self, mask: np.ndarray) -> Ranking:
        """The queries where ``mask`` (bool [Q]) holds, against the same gallery."""
        mask = np.asarray(mask)
        if mask.dtype != bool or mask.shape != (len(self),):
            raise InputError(
                f"Ranking.select takes one bool per query: {len(self)} of them, not {mask.dtype} {mask.shape}."
            )
        return Ranking(
            self.ranks[np.repeat(mask, self.r)],
            np.concatenate([[0], np.cumsum(self.r[mask])]),
            self.admissible[mask],
            self.right[mask],
            self.wrong[mask],
            None if self.graded is None else self.graded.select(mask),
        )

    # Per query, float64 [Q], NaN where a query has no positive. The means leave those out.

    def per_query(self, names: Sequence[str] = METRICS) -> dict[str, np.ndarray]:
        """The metrics of :mod:`marginlab.retrieval.metrics` by name, such as ``map``, ``cmc_1`` or ``ndcg_at_10``."""
        missing = [name for name in dict.fromkeys(names) if name not in self._known]
        for name, column in metrics.per_query(self, missing).items():
            column.setflags(write=False)
            self._known[name] = column
        return {name: self._known[name] for name in names}

    @cached_property
    def _known(self) -> dict[str, np.ndarray]:
        """Metrics that were asked for before: they cannot change."""
        return {}

    def ap(self) -> np.ndarray:
        return self.per_query(["map"])["map"]

    def ap_at_r(self) -> np.ndarray:
        return self.per_query(["map_at_r"])["map_at_r"]

    def hits(self, k: int | np.ndarray) -> np.ndarray:
        """Positives among the first ``k`` (one number, or one per query)."""
        return np.where(self.r > 0, sums.within(self.ranks, self.offsets, k), np.nan)

    def first(self) -> np.ndarray:
        """The rank of the nearest positive."""
        out = np.full(len(self), np.nan)
        matched = self.r > 0
        out[matched] = self.ranks[self.offsets[:-1][matched]]
        return out

    def allshots(self, k: int) -> np.ndarray:
        """``cmc_allshots_K``."""
        near = sums.leading(self.ranks, self.offsets, lambda place, rank, q: rank - place < k)
        return np.asarray(near / np.where(self.r > 0, self.r, np.nan))

    # Means over the queries that have a positive; NaN if there is none.

    def figures(self, names: Sequence[str] = METRICS) -> Figures:
        """The means over all queries."""
        means = {name: mean(column) for name, column in self.per_query(names).items()}
        return Figures(None, len(self), self.unmatched, means)

    def by(self, group: Sequence[Any] | np.ndarray, names: Sequence[str] = METRICS) -> list[Figures]:
        """The means over each group of queries, by a value per query: a horizon in months, a view, a grade, a side.

        In ascending order of the value; what has none (None or NaN) comes last, as one group.
        """
        value = group.tolist() if isinstance(group, np.ndarray) else list(group)
        if len(value) != len(self):
            raise InputError(f"Ranking.by takes one value per query: {len(self)} of them, not {len(value)}.")
        rows: dict[Any, list[int]] = {}
        for i, v in enumerate(value):
            rows.setdefault(None if v is None or v != v else v, []).append(i)
        columns, lonely = self.per_query(names), self.r == 0
        return [
            Figures(v, len(rows[v]), int(lonely[rows[v]].sum()), {n: mean(c[rows[v]]) for n, c in columns.items()})
            for v in [*sorted(v for v in rows if v is not None), *(v for v in rows if v is None)]
        ]

    def worst(self, n: int = 10, metric: str = "map") -> list[Worst]:
        """The ``n`` matched queries of the lowest figure, lowest first, equal ones in query order."""
        value = self.per_query([metric])[metric]
        order = np.argsort(np.where(self.r > 0, value, np.nan), kind="stable")[: min(n, len(self) - self.unmatched)]
        straight = sums.leading(self.ranks, self.offsets, lambda place, rank, q: rank == place)
        first = self.first()
        out = []
        for q in order.tolist():
            wrong = int(self.wrong[q])
            found = wrong >= 0
            out.append(
                Worst(
                    query=q,
                    value=float(value[q]),
                    wrong=wrong if found else None,
                    wrong_rank=int(straight[q]) + 1 if found else None,
                    right=int(self.right[q]),
                    right_rank=int(first[q]),
                )
            )
        return out

    def map(self) -> float:
        return mean(self.ap())

    def map_at_r(self) -> float:
        return mean(self.ap_at_r())

    def map_at(self, k: int) -> float:
        return self._mean(f"map_at_{k}")

    def r_precision(self) -> float:
        return self._mean("r_precision")

    def precision_at(self, k: int) -> float:
        return self._mean(f"precision_at_{k}")

    def recall_at(self, k: int) -> float:
        return self._mean(f"recall_at_{k}")

    def mrr(self) -> float:
        return self._mean("mrr")

    def cmc(self, k: int) -> float:
        return self._mean(f"cmc_{k}")

    def cmc_allshots(self, k: int) -> float:
        return self._mean(f"cmc_allshots_{k}")

    def ndcg(self, k: int | None = None) -> float:
        return self._mean("ndcg" if k is None else f"ndcg_at_{k}")

    def _mean(self, name: str) -> float:
        return mean(self.per_query([name])[name])


def mean(per_query: np.ndarray) -> float:
    per_query = per_query[~np.isnan(per_query)]
    return float(per_query.mean()) if len(per_query) else float("nan")


def _one_space(shape: Sequence[int], d: int) -> None:
    if shape[1] != d:
        raise InputError(
            f"Queries are [{shape[0]}, {shape[1]}], but the gallery has D = {d}: both must be of one network."
        )


def _matches(
    q: int,
    q_label: np.ndarray,
    q_visit: np.ndarray | None,
    g: int,
    g_label: np.ndarray,
    g_visit: np.ndarray | None,
) -> Matches:
    named = {"query_label": (q_label, q), "gallery_label": (g_label, g)}
    named |= {"query_visit": (q_visit, q), "gallery_visit": (g_visit, g)}  # type: ignore[dict-item]
    for name, (code, length) in named.items():
        if code is not None and np.shape(code) != (length,):
            raise InputError(f"{name} has {len(code)} entries for {length} embeddings.")
    return Matches.of(q_label, g_label, q_visit, g_visit)
