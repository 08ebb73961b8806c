"""The published protocols on a subset's embeddings: figures by name, per horizon."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from marginlab.data.subset import Subset
from marginlab.retrieval.embeddings import Embeddings, unit
from marginlab.retrieval.ranking import AT_K, METRICS, Ranking, mean
from marginlab.values import InputError

_POSITIVES_AT_ONCE = 2**25  # ranks held at a time


def validation_scores(embeddings: Embeddings, subset: Subset) -> dict[str, float]:
    """The published validation protocol on embeddings [n, D]: every image against all others, the same visit excluded.

    Keys: ``map``, ``map_at_r``, ``cmc_1``, ``cmc_allshots_1``; besides, the mAP of each horizon under the test protocol as
    ``map_12m`` and so on; where labels are grades, ``AT_K`` too. No entry is NaN: what has no match is left out.
    """
    embeddings = _checked(embeddings, subset)
    everything = np.ones(len(subset), dtype=bool)
    out = _means(_per_query(embeddings, subset, everything, everything, metrics_of(subset)), everything, "")
    if subset.graded:  # roles are those of the test protocol, and a validation has no second side
        return out
    over_time = protocol_scores(embeddings, subset)
    return out | {key: over_time[key] for key in (f"map_{h}m" for h in subset.horizons()) if key in over_time}


def protocol_scores(embeddings: Embeddings, subset: Subset) -> dict[str, float]:
    """The published test protocol: the subset's query images (later visits) look for its gallery images (first visits).

    The keys of :func:`validation_scores` over all queries, and each with ``_12m`` and so on over the queries of that many
    months after the first visit. No entry is NaN: what has no match is left out.
    """
    return protocol_means(protocol_queries(embeddings, subset, metrics_of(subset)), subset.months[subset.query])


def metrics_of(subset: Subset) -> tuple[str, ...]:
    return (*METRICS, *AT_K) if subset.graded else METRICS


def protocol_queries(embeddings: Embeddings, subset: Subset, names: Sequence[str] = METRICS) -> dict[str, np.ndarray]:
    """Each metric per query of the published test protocol, float64 [Q], in the subset's order; NaN without a match.

    Nothing where the subset has no query or no gallery.
    """
    embeddings = _checked(embeddings, subset)
    if not (subset.query.any() and subset.gallery.any()):
        return {}
    return _per_query(embeddings, subset, subset.query, subset.gallery, names)


def protocol_means(columns: dict[str, np.ndarray], months: np.ndarray) -> dict[str, float]:
    """What :func:`protocol_scores` says of the columns of :func:`protocol_queries`; ``months`` are those of the queries."""
    rounded = np.round(months)
    out = _means(columns, np.ones(len(months), dtype=bool), "")
    for horizon in sorted({int(m) for m in rounded[np.isfinite(rounded)]}):
        out |= _means(columns, rounded == horizon, f"_{horizon}m")
    return out


def ranking_of(embeddings: Tensor, subset: Subset, query: np.ndarray, gallery: np.ndarray) -> Ranking:
    """Rank the images of one mask or index array for those of another, the same visit excluded."""
    to = embeddings.device
    return Ranking.of(
        embeddings[torch.from_numpy(query).to(to)],
        embeddings[torch.from_numpy(gallery).to(to)],
        subset.label[query],
        subset.label[gallery],
        subset.visit[query],
        subset.visit[gallery],
    )


def _checked(embeddings: Embeddings, subset: Subset) -> Tensor:
    if len(embeddings) != len(subset):
        raise InputError(f"There are {len(embeddings)} embeddings for {len(subset)} images.")
    return unit(embeddings)


def _per_query(
    embeddings: Tensor, subset: Subset, query: np.ndarray, gallery: np.ndarray, names: Sequence[str] = METRICS
) -> dict[str, np.ndarray]:
    """Each metric per query, float64 [Q]; by blocks of queries, because the ranks of all of them may not fit in memory."""
    q, g = np.flatnonzero(query), np.flatnonzero(gallery)
    most = int(np.unique(subset.label[g], return_counts=True)[1].max())
    block = max(1, _POSITIVES_AT_ONCE // most)
    parts = [ranking_of(embeddings, subset, q[i : i + block], g).per_query(names) for i in range(0, len(q), block)]
    return {name: np.concatenate([part[name] for part in parts]) for name in names}


def _means(columns: dict[str, np.ndarray], rows: np.ndarray, suffix: str) -> dict[str, float]:
    means = {name + suffix: mean(column[rows]) for name, column in columns.items()}
    return {name: mean for name, mean in means.items() if not np.isnan(mean)}
