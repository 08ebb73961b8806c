"""Sums over the places of each query's positives, in memory that does not grow with their number.

``ranks`` [P] are ascending within a query, query q owns ``ranks[offsets[q]:offsets[q + 1]]``. Shapes: ``Q`` queries, ``P``
positives of all queries, ``G`` gallery.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from marginlab.retrieval.gains import Graded

_AT_ONCE = 2**20  # positives that are looked at together
_ITEMS = 2**16  # graded items
_LONG = 256  # positives per query from which a loop over the queries costs nothing
Term = Callable[[np.ndarray, np.ndarray], np.ndarray]  # (place 1, 2 ... R within its query, rank) -> float64


def leading(
    ranks: np.ndarray, offsets: np.ndarray, holds: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
) -> np.ndarray:
    """How many of a query's first positives satisfy ``holds(place, rank, query)``, which no later one does: int64 [Q].

    By bisection of all queries at once, so that it costs a few steps per query however many positives it has.
    """
    low, high = np.zeros(len(offsets) - 1, dtype=np.int64), np.diff(offsets)
    while True:
        q = np.flatnonzero(low < high)
        if not len(q):
            return low
        middle = (low[q] + high[q]) // 2
        true = holds(middle + 1, ranks[offsets[q] + middle].astype(np.int64), q)
        low[q] = np.where(true, middle + 1, low[q])
        high[q] = np.where(true, high[q], middle)


def within(ranks: np.ndarray, offsets: np.ndarray, k: int | np.ndarray) -> np.ndarray:
    """Positives among the first ``k`` (one number, or one per query): int64 [Q]."""
    k = np.broadcast_to(k, len(offsets) - 1)
    return leading(ranks, offsets, lambda place, rank, q: rank <= k[q])


def left_to_right(ranks: np.ndarray, offsets: np.ndarray, term: Term, upto: Sequence[np.ndarray]) -> list[np.ndarray]:
    """For each ``n`` in ``upto`` (int64 [Q]) the sum of ``term`` over a query's first n positives, from left to right.

    float64 [Q] each. The order of summation is part of the promise: recorded figures are these to the last bit.
    """
    r = np.diff(offsets)
    out = [np.zeros(len(r)) for _ in upto]
    for a, b in _blocks(offsets) if upto else ():
        if offsets[b] - offsets[a] > _LONG * (b - a):
            for q in range(a, b):
                most = max(int(n[q]) for n in upto)
                mine = ranks[offsets[q] : offsets[q] + most]
                running = np.cumsum(term(np.arange(1, most + 1), mine))
                for total, n in zip(out, upto, strict=True):
                    total[q] = running[n[q] - 1] if n[q] else 0.0
        else:
            query = np.repeat(np.arange(b - a), r[a:b])
            place = np.arange(offsets[a], offsets[b]) - offsets[a:b][query] + 1
            terms = term(place, ranks[offsets[a] : offsets[b]])
            for total, n in zip(out, upto, strict=True):
                weights = np.where(place <= n[a:b][query], terms, 0.0)
                total[a:b] = np.bincount(query, weights=weights, minlength=b - a)
    return out


def precision(place: np.ndarray, rank: np.ndarray) -> np.ndarray:
    """At the rank of a positive: the share of positives among all down to it."""
    return np.asarray(place / rank)


def discounts(n: int) -> np.ndarray:
    """1 / log2(1 + rank) for the ranks 1 to n, and before them a 0 for rank 0: float64 [n + 1]."""
    return np.concatenate([[0.0], 1 / np.log2(np.arange(2, n + 2))])


def ndcg(ranks: np.ndarray, offsets: np.ndarray, upto: np.ndarray, ideal: np.ndarray) -> np.ndarray:
    """NDCG with a gain of 1 for a positive: over its first ``upto`` positives, against ``ideal`` of them. float64 [Q]."""
    discount = discounts(int(max(ranks.max(initial=0), ideal.max(initial=0))))
    dcg = left_to_right(ranks, offsets, lambda place, rank: discount[rank], [upto])[0]
    return _ratio(dcg, np.cumsum(discount)[ideal])


def graded_ndcg(graded: Graded, k: int | None) -> np.ndarray:
    """NDCG at ``k`` (of all items when None) from the grade at each rank: float64 [Q]."""
    q, g = graded.at.shape
    k = g if k is None else min(k, g)
    discount = discounts(g)[1:]
    dcg = np.empty(q)
    step = max(1, _ITEMS // max(1, k))
    for a in range(0, q, step):
        dcg[a : a + step] = graded.gains.take(graded.at[a : a + step, :k]) @ discount[:k]
    best = np.concatenate([[0.0], np.cumsum(discount)])
    ends = np.minimum(np.cumsum(graded.count[:, ::-1], axis=1), k)  # in the best order the highest gains come first
    ideal = np.diff(best[ends], axis=1, prepend=0.0) @ graded.gains[::-1]
    return _ratio(dcg, ideal)


def _ratio(dcg: np.ndarray, ideal: np.ndarray) -> np.ndarray:
    """NaN where nothing has a gain."""
    out = np.full(len(dcg), np.nan)
    np.divide(dcg, ideal, out=out, where=ideal > 0)
    return out


def _blocks(offsets: np.ndarray) -> Iterator[tuple[int, int]]:
    """Runs of queries a:b with at most ``_AT_ONCE`` positives, or one query."""
    a = 0
    while a < len(offsets) - 1:
        b = max(a + 1, int(np.searchsorted(offsets, offsets[a] + _AT_ONCE, side="right")) - 1)
        yield a, b
        a = b
