"""Exact ranks against a gallery that comes in parts, because its embeddings do not fit in memory.

The gallery is read twice. The first time each positive's similarity is taken from the product of its part; the second time
every part says how many of its items rank before each positive, by comparing or by sorting, as in :mod:`blocks`. Both times
the products have the same shapes, so that a similarity is the same number when it is met again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from types import ModuleType

import numpy as np
import torch
from torch import Tensor

from marginlab.retrieval import on_cpu
from marginlab.retrieval.blocks import Found, rows_on
from marginlab.retrieval.embeddings import Embeddings, checked_unit, full_precision
from marginlab.retrieval.matches import Matches
from marginlab.retrieval.memory import block_bytes, free_bytes
from marginlab.retrieval.ordered import Order, Spread
from marginlab.values import InputError

Parts = Callable[[], Iterable[Embeddings]]
_POSITIVE_BYTES = 32  # similarity, key, row, column and rank of one that is followed


def find_in_parts(
    q: Tensor, parts: Parts, matches: Matches, *, level: np.ndarray | None, positives: int | None
) -> Found:
    """As :func:`blocks.find`. ``positives`` are followed at a time; with ``level`` every admissible item is one of them."""
    found = Found.empty(matches, level is not None)
    offset = np.cumsum(matches.count) - matches.count
    each = matches.count if level is None else matches.admissible
    most = positives or max(1, free_bytes(torch.device("cpu")) // 4 // _POSITIVE_BYTES)
    wanted = np.flatnonzero(each)
    with rows_on(q.device).threads() as spread:
        for own in _turns(wanted, each, most):
            order = _Turn(q, matches, own, level).run(parts, spread)
            found.put(own, offset, matches.count, order)
    return found


def _turns(wanted: np.ndarray, each: np.ndarray, most: int) -> Iterator[np.ndarray]:
    ends = np.cumsum(each[wanted])
    begin = 0
    while begin < len(wanted):
        done = ends[begin - 1] if begin else 0
        end = max(begin + 1, int(np.searchsorted(ends, done + most, side="right")))
        yield wanted[begin:end]
        begin = end


@dataclass(frozen=True, eq=False)
class _Block:
    """The similarities of some queries and one part."""

    sim: Tensor  # [c, g]
    queries: slice  # within the turn
    items: slice  # of the turn's followed items
    first: int  # gallery row of column 0


class _Turn:
    """The queries ``own``: one reading of the gallery for similarities, one for ranks."""

    def __init__(self, q: Tensor, matches: Matches, own: np.ndarray, level: np.ndarray | None) -> None:
        self.matches, self.own, self.level = matches, own, level
        self.rows: ModuleType = rows_on(q.device)
        self.q = q[torch.from_numpy(own).to(q.device)]
        self.most = block_bytes(q.device) // 4  # similarities; asked once, so that both readings have the same products
        self.row, self.col = matches.positives(own) if level is None else self._everything()
        self.out_row, self.out_col = matches.left_out(own)
        self.value = np.empty(len(self.row), dtype=np.float32)
        self.rank = np.ones(len(self.row), dtype=np.int64)
        self.wrong = np.full(len(own), -1)
        self.wrong_value = np.full(len(own), -np.inf, dtype=np.float32)

    def run(self, parts: Parts, spread: Spread) -> Order:
        for block in self._blocks(parts):
            self._take(block)
        for block in self._blocks(parts):
            self._count(block, spread)
        return self._order()

    def _everything(self) -> tuple[np.ndarray, np.ndarray]:
        """All admissible items, for graded relevance."""
        competes = np.ones((len(self.own), len(self.matches.g_code)), dtype=bool)
        competes[self.matches.left_out(self.own)] = False
        row, col = np.nonzero(competes)
        return row, col

    def _blocks(self, parts: Parts) -> Iterator[_Block]:
        """Products of a few queries with a whole part each; the shapes are the same in every reading."""
        first, total = 0, len(self.matches.g_code)
        room = torch.empty(0, device=self.q.device)
        for part in parts():
            g = checked_unit(part, "gallery").to(self.q.device)
            if g.shape[1] != self.q.shape[1]:
                raise InputError(f"Queries have D = {self.q.shape[1]}, but a part of the gallery has D = {g.shape[1]}.")
            if first + len(g) > total:
                break
            if not len(g):
                continue
            chunk = min(len(self.q), max(1, self.most // len(g)))
            if len(room) < chunk * len(g):
                room = torch.empty(chunk * len(g), device=self.q.device)
            for i in range(0, len(self.q), chunk):
                queries = slice(i, min(i + chunk, len(self.q)))
                here = room[: (queries.stop - i) * len(g)].view(-1, len(g))
                with full_precision(self.q.device):
                    sim = torch.mm(self.q[queries], g.T, out=here)
                yield _Block(sim, queries, slice(*np.searchsorted(self.row, (queries.start, queries.stop))), first)
            first += len(g)
        else:
            if first == total:
                return
        raise InputError(f"The parts of the gallery do not have the {total} rows for which there are labels.")

    def _inside(self, block: _Block, col: np.ndarray) -> np.ndarray:
        return np.flatnonzero((col >= block.first) & (col < block.first + block.sim.shape[1]))

    def _take(self, block: _Block) -> None:
        here = block.items.start + self._inside(block, self.col[block.items])
        row, col = self.row[here] - block.queries.start, self.col[here] - block.first
        self.value[here] = self.rows.values(block.sim, row, col)

    def _count(self, block: _Block, spread: Spread) -> None:
        sim, begin = block.sim, block.queries.start
        out = slice(*np.searchsorted(self.out_row, (begin, block.queries.stop)))
        hidden = self._inside(block, self.out_col[out])
        self.rows.hide(sim, self.out_row[out][hidden] - begin, self.out_col[out][hidden] - block.first)
        row, value, col = self.row[block.items] - begin, self.value[block.items], self.col[block.items]
        if self.rows.few(len(sim), sim.shape[1], len(row)):
            split = np.clip(col - block.first, 0, sim.shape[1])
            self.rank[block.items] += self.rows.before(sim, row, value, split)
        else:
            key = on_cpu.keys(value, col)
            self.rank[block.items] += self.rows.before_by_sorting(sim, row, key, block.first, spread)
        right = self._right(block)
        here = self._inside(block, col[right])
        self.rows.hide(sim, row[right][here], col[right][here] - block.first)
        column, best = self.rows.best(sim)
        nearer = best > self.wrong_value[block.queries]  # of equals the earlier part's is the lower row
        self.wrong[block.queries] = np.where(nearer, column + block.first, self.wrong[block.queries])
        self.wrong_value[block.queries] = np.maximum(best, self.wrong_value[block.queries])

    def _right(self, block: _Block) -> np.ndarray:
        """Which of the followed items are matches."""
        if self.level is None:
            return np.ones(block.items.stop - block.items.start, dtype=bool)
        return self._match(block.items)

    def _match(self, items: slice) -> np.ndarray:
        code = self.matches.q_code[self.own][self.row[items]]
        return np.asarray(code == self.matches.g_code[self.col[items]])

    def _order(self) -> Order:
        row, col, rank = self.row, self.col, self.rank
        grade = None
        if self.level is not None:
            grade = np.zeros((len(self.own), len(self.matches.g_code)), dtype=np.uint8)
            code = self.matches.q_code[self.own][row], self.matches.g_code[col]
            grade[row, rank - 1] = self.level[code]
            match = self._match(slice(None))
            row, col, rank = row[match], col[match], rank[match]
        near = np.lexsort((rank, row))
        right = np.full(len(self.own), -1)
        matched, first = np.unique(row, return_index=True)
        right[matched] = col[near][first]
        return Order(rank[near].astype(np.int32), right, self.wrong, grade)
