"""Exact ranks in memory of one block of queries times the gallery, without ranking what nobody asks for.

The similarities of a block are one matrix product. Where a query's positives are few, each is compared with the row; where
they are many, the row is sorted once: the same ranks, because equal similarities rank by gallery row in both. A positive's
similarity is read from the very product it is compared with, since the same dot product computed elsewhere may differ in
its last bit.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType

import numpy as np
import torch
from torch import Tensor

from marginlab.retrieval import on_cpu, on_gpu
from marginlab.retrieval.embeddings import full_precision
from marginlab.retrieval.matches import Matches
from marginlab.retrieval.memory import block_bytes
from marginlab.retrieval.ordered import Order, Spread
from marginlab.values import InputError

WAYS = ("auto", "count", "sort")


@dataclass(frozen=True, eq=False)
class Found:
    """Of all queries: see :class:`~marginlab.retrieval.ranking.Ranking` for the meaning of each."""

    ranks: np.ndarray  # int16 or int32 [P]
    right: np.ndarray  # int64 [Q]
    wrong: np.ndarray  # int64 [Q]
    grade: np.ndarray | None  # uint8 [Q, G]

    @classmethod
    def empty(cls, matches: Matches, graded: bool) -> Found:
        q, g = len(matches), len(matches.g_code)
        # Half the memory where it is large: 70% of a gallery of 28,000 for each of 7,000 queries.
        narrow = np.int16 if g < np.iinfo(np.int16).max else np.int32
        grade = np.zeros((q, g), dtype=np.uint8) if graded else None
        return cls(np.empty(matches.count.sum(), dtype=narrow), np.full(q, -1), np.full(q, -1), grade)

    def put(self, own: np.ndarray, offset: np.ndarray, count: np.ndarray, order: Order) -> None:
        """The findings of the queries ``own``; ``offset`` [Q] is where a query's ranks begin."""
        ends = np.cumsum(count[own])
        where = zip(offset[own].tolist(), (ends - count[own]).tolist(), ends.tolist(), strict=True)
        for to, begin, end in where:
            self.ranks[to : to + end - begin] = order.ranks[begin:end]
        self.right[own], self.wrong[own] = order.right, order.wrong
        if self.grade is not None:
            self.grade[own] = order.grade


def rows_on(device: torch.device) -> ModuleType:
    return on_cpu if device.type == "cpu" else on_gpu


def find(
    q: Tensor, g: Tensor, matches: Matches, *, level: np.ndarray | None = None, chunk: int | None, by: str
) -> Found:
    """Rank unit ``g`` [G, D] for unit ``q`` [Q, D]. ``level`` [codes, codes] asks for the grade at every rank, too."""
    if by not in WAYS:
        raise InputError(f"Ranks are found by {', '.join(map(repr, WAYS))}, not {by!r}.")
    rows = rows_on(q.device)
    found = Found.empty(matches, level is not None)
    offset = np.cumsum(matches.count) - matches.count
    chunk = chunk or max(1, block_bytes(q.device) // (4 * max(1, len(g))))
    wanted = np.flatnonzero(matches.count) if level is None else np.arange(len(q) if len(g) else 0)
    wanted = wanted[np.argsort(matches.same[wanted], kind="stable")]  # like with like: one way suits the whole block
    room = torch.empty((min(chunk, len(wanted)), len(g)), dtype=torch.float32, device=q.device)
    with rows.threads() as spread:
        for i in range(0, len(wanted), chunk):
            own = wanted[i : i + chunk]
            with full_precision(q.device):
                sim = torch.mm(q[torch.from_numpy(own).to(q.device)], g.T, out=room[: len(own)])
            rows.hide(sim, *matches.left_out(own))
            few = rows.few(len(own), len(g), int(matches.count[own].sum())) if by == "auto" else by == "count"
            if few and level is None:
                order = by_counting(rows, sim, *matches.positives(own))
            else:
                order = _by_sorting(rows, sim, matches, own, level, spread)
            found.put(own, offset, matches.count, order)
    return found


def by_counting(rows: ModuleType, sim: Tensor, row: np.ndarray, col: np.ndarray) -> Order:
    """Compare each positive (``row`` ascending, ``col``) with its row of ``sim`` [c, G], which is overwritten."""
    rank = 1 + rows.before(sim, row, rows.values(sim, row, col), col)
    near = np.lexsort((rank, row))
    right = np.full(len(sim), -1)
    matched, first = np.unique(row, return_index=True)
    right[matched] = col[near][first]
    rows.hide(sim, row, col)
    wrong, value = rows.best(sim)
    return Order(rank[near].astype(np.int32), right, np.where(value > -np.inf, wrong, -1))


def _by_sorting(
    rows: ModuleType, sim: Tensor, matches: Matches, own: np.ndarray, level: np.ndarray | None, spread: Spread
) -> Order:
    found: Order = rows.order(sim, matches.q_code[own], matches.g_code, matches.admissible[own], level, spread)
    return found
