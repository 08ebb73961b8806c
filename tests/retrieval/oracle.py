"""Rankings the slow way: one plain sort per query, and figures by loops over it."""

from __future__ import annotations

import math

import numpy as np
import torch

from marginlab.retrieval import Ranking, unit

torch.set_num_threads(1)


def similarities(q, g) -> np.ndarray:
    return (unit(q) @ unit(g).T).numpy()


def admissible(sim, q_label, g_label, q_visit=None, g_visit=None) -> list[list[int]]:
    """For each query the gallery rows that compete, nearest first, equal ones by row."""
    out = []
    for q in range(len(sim)):
        items = [
            g for g in range(len(g_label)) if q_visit is None or g_label[g] != q_label[q] or g_visit[g] != q_visit[q]
        ]
        out.append(sorted(items, key=lambda g: (-sim[q, g], g)))
    return out


def check(ranking: Ranking, sim, q_label, g_label, q_visit=None, g_visit=None) -> None:
    """Everything that a ranking stores."""
    orders = admissible(sim, q_label, g_label, q_visit, g_visit)
    matches = [[g_label[g] == q_label[q] for g in order] for q, order in enumerate(orders)]
    ranks = [[i + 1 for i, m in enumerate(row) if m] for row in matches]
    assert [list(r) for r in np.split(ranking.ranks, ranking.offsets[1:-1])] == ranks
    assert ranking.admissible.tolist() == [len(order) for order in orders]
    assert ranking.r.tolist() == [len(r) for r in ranks]
    assert ranking.unmatched == sum(not r for r in ranks)
    for q, (order, row) in enumerate(zip(orders, matches, strict=True)):
        right = [g for g, m in zip(order, row, strict=True) if m]
        wrong = [g for g, m in zip(order, row, strict=True) if not m]
        assert ranking.right[q] == (right[0] if right else -1)
        assert ranking.wrong[q] == (wrong[0] if right and wrong else -1)


def figures(row: list[bool], k: int) -> dict[str, float]:
    """All metrics of one query with a match, from whether each admissible item is right, nearest first."""
    r, shots = sum(row), 0.0
    hits = [sum(row[: i + 1]) for i in range(len(row))]

    def precisions(n):
        return sum(hits[i] / (i + 1) for i in range(min(n, len(row))) if row[i])

    def dcg(gains, n):
        return sum(gain / math.log2(i + 2) for i, gain in enumerate(gains[:n]))

    for i, match in enumerate(row):
        shots += match and (i + 1 - hits[i]) < k
    best = sorted(row, reverse=True)
    return {
        "map": precisions(len(row)) / r,
        "map_at_r": precisions(r) / r,
        f"map_at_{k}": precisions(k) / k,
        "r_precision": sum(row[:r]) / r,
        f"precision_at_{k}": sum(row[:k]) / k,
        f"mhr_at_{k}": sum(row[:k]) / k,
        f"recall_at_{k}": sum(row[:k]) / r,
        "mrr": 1 / (row.index(True) + 1),
        f"cmc_{k}": float(any(row[:k])),
        f"cmc_allshots_{k}": shots / r,
        "ndcg": dcg(row, len(row)) / dcg(best, len(row)),
        f"ndcg_at_{k}": dcg(row, k) / dcg(best, k),
    }


def from_order(*orders: str) -> Ranking:
    """A ranking as it is drawn: ``from_order("+-+-")`` has positives at ranks 1 and 3 of 4. Gallery rows are ranks less 1."""
    ranks = [[i + 1 for i, c in enumerate(order) if c == "+"] for order in orders]
    matched = [bool(r) for r in ranks]
    return Ranking(
        np.array([r for one in ranks for r in one], dtype=np.int32),
        np.concatenate([[0], np.cumsum([len(r) for r in ranks], dtype=np.int64)]),
        np.array([len(o) for o in orders], dtype=np.int64),
        np.array([o.find("+") for o in orders], dtype=np.int64),
        np.array([o.find("-") if m else -1 for o, m in zip(orders, matched, strict=True)], dtype=np.int64),
    )


def same(a: Ranking, b: Ranking) -> bool:
    fields = ("ranks", "offsets", "admissible", "right", "wrong")
    if (a.graded is None) != (b.graded is None):
        return False
    grades = a.graded is None or all(
        np.array_equal(getattr(a.graded, f), getattr(b.graded, f)) for f in ("at", "count", "gains")
    )
    return grades and all(np.array_equal(getattr(a, f), getattr(b, f)) for f in fields)


def corner_points(rng, n, d=4):
    """Rows of +-1: their products with each other are exact in any order of summation, and full of ties."""
    return torch.from_numpy(rng.choice([-1.0, 1.0], (n, d)).astype(np.float32))


def tie_free(n=240, labels=30, d=16, spread=0.6, seed=0):
    rng = np.random.default_rng(seed)
    label = rng.integers(0, labels, n)
    x = rng.normal(size=(labels, d))[label] * spread + rng.normal(size=(n, d))
    return torch.from_numpy(x.astype(np.float32)), label, rng
