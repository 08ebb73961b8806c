"""Ranking: for each query, at which places of its gallery the right answers stand. Every metric derives from it.

Exact, in memory of one block of queries times the gallery. The similarity is the cosine, in float32 whatever the
precision of the training. Shapes: ``Q`` queries, ``G`` gallery items, ``D`` embedding, ``P`` positives of all queries.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from marginlab.data.subset import Subset
from marginlab.ranks import positive_ranks
from marginlab.values import InputError

Embeddings = Tensor | np.ndarray
METRICS = ("map", "map_at_r", "cmc_1", "cmc_allshots_1")
_POSITIVES_AT_ONCE = 2**25  # ranks held at a time by the scores: 128 MiB


@dataclass(frozen=True, eq=False)
class Ranking:
    """The ranks of the positives of each query among the gallery items that are admissible for it.

    A positive is a gallery item of the query's label from another visit; items of the same label *and* the same visit
    (the query image itself among them) are not admissible: they are as if absent. A query without any positive counts
    in ``unmatched`` and in no mean. Items at equal similarity rank in gallery row order.
    """

    ranks: np.ndarray  # int32 [P], 1 is the nearest; ascending within a query
    offsets: np.ndarray  # int64 [Q + 1], query q owns ranks[offsets[q]:offsets[q + 1]]
    admissible: np.ndarray  # int64 [Q], gallery items that compete

    def __post_init__(self) -> None:
        for f in fields(self):
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
        chunk: int | None = None,
        by: Literal["auto", "count", "sort"] = "auto",
    ) -> Ranking:
        """Rank ``gallery`` [G, D] for each row of ``query`` [Q, D], on the device where the embeddings are.

        Visit codes are integers; without them nothing is excluded. ``chunk`` queries are compared at a time (chosen
        from the size of the gallery when None) and ``by`` forces how ranks are found: neither changes the result,
        up to the rounding of the matrix product.
        """
        q, g = unit(query), unit(gallery)
        _check(q, g, query_label, gallery_label, query_visit, gallery_visit)
        ranks, count, excluded = positive_ranks(
            q, g, query_label, gallery_label, query_visit, gallery_visit, chunk=chunk, by=by
        )
        return cls(ranks, np.concatenate([[0], np.cumsum(count)]), len(g) - excluded)

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
        kept = self.ranks[np.repeat(mask, self.r)]
        return Ranking(kept, np.concatenate([[0], np.cumsum(self.r[mask])]), self.admissible[mask])

    # Per query, float64 [Q], NaN where a query has no positive. The means below leave those out.

    def ap(self) -> np.ndarray:
        """Average precision: (1/R) sum_j j / r_j over the R positives at ranks r_1 < r_2 < ..."""
        return self._share(self._place() / self.ranks)

    def ap_at_r(self) -> np.ndarray:
        """(1/R) sum_{k <= R} precision(k) relevant(k) (Musgrave et al., A Metric Learning Reality Check, 2020)."""
        near = self.ranks <= np.repeat(self.r, self.r)
        return self._share(near * self._place() / self.ranks)

    def hits(self, k: int | np.ndarray) -> np.ndarray:
        """Positives among the first ``k`` (one number, or one per query)."""
        k = np.broadcast_to(k, len(self))
        return np.where(self.r > 0, self._sum(self.ranks <= np.repeat(k, self.r)), np.nan)

    def first(self) -> np.ndarray:
        """The rank of the nearest positive."""
        out = np.full(len(self), np.nan)
        matched = self.r > 0
        out[matched] = self.ranks[self.offsets[:-1][matched]]
        return out

    def allshots(self, k: int) -> np.ndarray:
        """The share of a query's matches that have fewer than ``k`` non-matches before them: other matches are ignored.

        open-reid's "allshots" CMC, which the published AdaTriplet tables call CMC. With R > 1 it is not rank-k accuracy.
        """
        return self._share(self.ranks - self._place() < k)

    # Means over the queries that have a positive; NaN if there is none.

    def map(self) -> float:
        return _mean(self.ap())

    def map_at_r(self) -> float:
        return _mean(self.ap_at_r())

    def r_precision(self) -> float:
        """Share of positives among a query's first R."""
        return _mean(self.hits(self.r) / self._r())

    def precision_at(self, k: int) -> float:
        """Share of positives among the first ``k``; a gallery shorter than ``k`` counts as if filled up with misses."""
        return _mean(self.hits(k) / k)

    def recall_at(self, k: int) -> float:
        """Share of a query's positives that are among the first ``k`` (for "any of them is", see :meth:`cmc`)."""
        return _mean(self.hits(k) / self._r())

    def mrr(self) -> float:
        """Mean of 1 / rank of the nearest positive."""
        return _mean(1 / self.first())

    def cmc(self, k: int) -> float:
        """Share of queries with a positive among the first ``k``: rank-k accuracy."""
        return _mean(np.where(self.r > 0, self.first() <= k, np.nan))

    def cmc_allshots(self, k: int) -> float:
        return _mean(self.allshots(k))

    def _r(self) -> np.ndarray:
        return np.where(self.r > 0, self.r, np.nan)

    def _place(self) -> np.ndarray:
        """1, 2, ..., R within each query: [P]."""
        before = np.repeat(self.offsets[:-1], self.r)
        return np.asarray(np.arange(1, len(self.ranks) + 1) - before)

    def _sum(self, per_positive: np.ndarray) -> np.ndarray:
        """Sum over each query's positives: [P] to float64 [Q]."""
        return np.bincount(np.repeat(np.arange(len(self)), self.r), weights=per_positive, minlength=len(self))

    def _share(self, per_positive: np.ndarray) -> np.ndarray:
        """Mean over each query's positives, NaN where there are none: [P] to float64 [Q]."""
        return np.asarray(self._sum(per_positive) / self._r())


def _mean(per_query: np.ndarray) -> float:
    per_query = per_query[~np.isnan(per_query)]
    return float(per_query.mean()) if len(per_query) else float("nan")


def unit(x: Embeddings) -> Tensor:
    """Rows scaled to length 1 in float32."""
    return F.normalize(torch.as_tensor(x).detach().float(), dim=1)


def concatenate(embeddings: Sequence[Embeddings]) -> Tensor:
    """One embedding from those of n models: [n x (B, D)] to [B, n D], each scaled to length 1 and by 1 / sqrt(n).

    Its cosine is exactly the mean of the models' cosines: (1/n) sum_i <x_i, y_i>, which is how the published protocol
    joins fold models for mAP and CMC (it averages distance matrices). The *mean* of the embeddings is not an ensemble:
    every training turns its space its own way, so it adds up coordinates that have nothing to do with each other. The
    models may differ in D.
    """
    if not embeddings:
        raise InputError("concatenate needs the embeddings of at least one model.")
    rows = sorted({len(e) for e in embeddings})
    if len(rows) > 1:
        raise InputError(f"concatenate needs the same images from every model, not {rows} rows.")
    return torch.cat([unit(e) for e in embeddings], dim=1).mul_(len(embeddings) ** -0.5)


def validation_scores(embeddings: Embeddings, subset: Subset) -> dict[str, float]:
    """The published validation protocol on embeddings [n, D]: every image against all others, the same visit excluded.

    Keys: ``map``, ``map_at_r``, ``cmc_1``, ``cmc_allshots_1``; besides, the mAP of each horizon under the test protocol as
    ``map_12m`` and so on. No entry is NaN: what has no match is left out.
    """
    embeddings = _checked(embeddings, subset)
    everything = np.ones(len(subset), dtype=bool)
    out = _means(_per_query(embeddings, subset, everything, everything), everything, "")
    over_time = protocol_scores(embeddings, subset)
    return out | {key: over_time[key] for key in (f"map_{h}m" for h in subset.horizons()) if key in over_time}


def protocol_scores(embeddings: Embeddings, subset: Subset) -> dict[str, float]:
    """The published test protocol: the subset's gallery images (first visits) against its query images (later visits).

    The keys of :func:`validation_scores` over all queries, and each with ``_12m`` and so on over the queries of that many
    months after the first visit. No entry is NaN: what has no match is left out.
    """
    embeddings = _checked(embeddings, subset)
    if not (subset.query.any() and subset.gallery.any()):
        return {}
    columns = _per_query(embeddings, subset, subset.query, subset.gallery)
    months = np.round(subset.months[subset.query])
    out = _means(columns, np.ones(len(months), dtype=bool), "")
    for horizon in subset.horizons():
        out |= _means(columns, months == horizon, f"_{horizon}m")
    return out


def _checked(embeddings: Embeddings, subset: Subset) -> Tensor:
    if len(embeddings) != len(subset):
        raise InputError(f"There are {len(embeddings)} embeddings for {len(subset)} images.")
    return unit(embeddings)


def _per_query(embeddings: Tensor, subset: Subset, query: np.ndarray, gallery: np.ndarray) -> dict[str, np.ndarray]:
    """Each metric per query, float64 [Q]; by blocks of queries, because the ranks of all of them may not fit in memory."""
    q, g = np.flatnonzero(query), np.flatnonzero(gallery)
    most = int(np.unique(subset.label[g], return_counts=True)[1].max())
    block = max(1, _POSITIVES_AT_ONCE // most)
    to_gallery = embeddings[torch.from_numpy(g).to(embeddings.device)]
    parts = []
    for i in range(0, len(q), block):
        own = q[i : i + block]
        ranking = Ranking.of(
            embeddings[torch.from_numpy(own).to(embeddings.device)],
            to_gallery,
            subset.label[own],
            subset.label[g],
            subset.visit[own],
            subset.visit[g],
        )
        first = ranking.first()
        cmc = np.where(np.isnan(first), np.nan, first <= 1)
        parts.append((ranking.ap(), ranking.ap_at_r(), cmc, ranking.allshots(1)))
    return {name: np.concatenate(column) for name, column in zip(METRICS, zip(*parts, strict=True), strict=True)}


def _means(columns: dict[str, np.ndarray], rows: np.ndarray, suffix: str) -> dict[str, float]:
    means = {name + suffix: _mean(column[rows]) for name, column in columns.items()}
    return {name: mean for name, mean in means.items() if not np.isnan(mean)}


def _check(q: Tensor, g: Tensor, *codes: np.ndarray | None) -> None:
    if q.ndim != 2 or g.ndim != 2 or q.shape[1] != g.shape[1]:
        raise InputError(f"Queries {list(q.shape)} and gallery {list(g.shape)} must be [Q, D] and [G, D] with one D.")
    if (codes[2] is None) != (codes[3] is None):
        raise InputError("Give the visits of both queries and gallery, or of neither.")
    for name, code, length in zip(
        ("query_label", "gallery_label", "query_visit", "gallery_visit"), codes, (len(q), len(g)) * 2, strict=True
    ):
        if code is not None and len(code) != length:
            raise InputError(f"{name} has {len(code)} entries for {length} embeddings.")
    if not (torch.isfinite(q).all() and torch.isfinite(g).all()):
        raise InputError(
            "The embeddings hold NaN or infinity, which have no place in a ranking: the training diverged."
        )
