"""The metrics by name, per query. Shapes: ``Q`` queries, R positives of a query; K is any number from 1 up.

===================  ==========================================================================================
``map``              average precision: (1/R) sum_j j / r_j over the R positives at ranks r_1 < r_2 < ...
``map_at_r``         (1/R) sum_{k <= R} precision(k) relevant(k) (Musgrave et al., A Metric Learning Reality
                     Check, 2020)
``map_at_K``         (1/K) sum_{k <= K} precision(k) relevant(k): divided by K, not by the number of hits
``r_precision``      share of positives among the first R
``precision_at_K``   share of positives among the first K; a gallery shorter than K counts as filled up with misses
``mhr_at_K``         the same under the name that retinal retrieval has for it, mean hit ratio
``recall_at_K``      share of the positives that are among the first K
``mrr``              1 / rank of the nearest positive
``cmc_K``            1 if a positive is among the first K: rank-K accuracy, the first match alone counts
``cmc_allshots_K``   the share of a query's positives with fewer than K wrong ones before them: open-reid's
                     "allshots" CMC, which the published AdaTriplet tables call CMC. With R > 1 it is not rank-K
                     accuracy
``ndcg``,            sum gain / log2(1 + rank) over the admissible items (the first K of them), over what the best
``ndcg_at_K``        order would give; a positive has the gain 1 unless gains were given. NaN where all gains are 0
===================  ==========================================================================================
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from marginlab.retrieval import sums
from marginlab.values import InputError

if TYPE_CHECKING:
    from marginlab.retrieval.ranking import Ranking

KINDS = ("map", "map_at_r", "r_precision", "mrr", "ndcg")
KINDS_AT_K = ("map_at", "precision_at", "mhr_at", "recall_at", "ndcg_at", "cmc", "cmc_allshots")
_AVERAGES = ("map", "map_at_r", "map_at")  # of precision over the positives
_NAME = re.compile(r"(?P<kind>.+?)_(?P<k>[1-9]\d*)")


def parse(name: str) -> tuple[str, int | None]:
    """``precision_at_10`` to ``("precision_at", 10)``, ``map`` to ``("map", None)``."""
    if name in KINDS:
        return name, None
    found = _NAME.fullmatch(name)
    if not found or found["kind"] not in KINDS_AT_K:
        known = ", ".join([*KINDS, *(f"{kind}_K" for kind in KINDS_AT_K)])
        raise InputError(f"There is no metric {name!r}; there are {known}, K being a number from 1 up.")
    return found["kind"], int(found["k"])


def per_query(ranking: Ranking, names: Sequence[str]) -> dict[str, np.ndarray]:
    """float64 [Q] each, NaN where a query has no positive; all averages of precision in one pass over the positives."""
    asked = {name: parse(name) for name in names}
    upto = {name: _precise(ranking, k, kind) for name, (kind, k) in asked.items() if kind in _AVERAGES}
    found = sums.left_to_right(ranking.ranks, ranking.offsets, sums.precision, [*upto.values()])
    averages = dict(zip(upto, found, strict=True))
    return {name: _figure(ranking, *asked[name], averages.get(name)) for name in names}


def _precise(ranking: Ranking, k: int | None, kind: str) -> np.ndarray:
    """How many of the first positives enter the sum of precisions."""
    return ranking.r if kind == "map" else sums.within(ranking.ranks, ranking.offsets, ranking.r if k is None else k)


def _figure(ranking: Ranking, kind: str, k: int | None, precisions: np.ndarray | None) -> np.ndarray:
    r = np.where(ranking.r > 0, ranking.r, np.nan)
    if precisions is not None:
        return np.asarray(precisions / (r if k is None else np.where(ranking.r > 0, k, np.nan)))
    if kind.startswith("ndcg"):
        return _ndcg(ranking, k)
    if kind == "mrr":
        return np.asarray(1 / ranking.first())
    if kind == "r_precision":
        return np.asarray(ranking.hits(ranking.r) / r)
    assert k is not None  # the rest have a K
    if kind == "cmc":
        return np.where(ranking.r > 0, ranking.first() <= k, np.nan)
    if kind == "cmc_allshots":
        return ranking.allshots(k)
    return np.asarray(ranking.hits(k) / (r if kind == "recall_at" else k))


def _ndcg(ranking: Ranking, k: int | None) -> np.ndarray:
    if ranking.graded is not None:
        return sums.graded_ndcg(ranking.graded, k)
    upto = ranking.r if k is None else sums.within(ranking.ranks, ranking.offsets, k)
    return sums.ndcg(ranking.ranks, ranking.offsets, upto, ranking.r if k is None else np.minimum(ranking.r, k))
