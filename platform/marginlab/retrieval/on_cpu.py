"""Rows of similarities on the processor: numpy, which compares and sorts several times faster than torch does there.

Items rank by falling similarity, equal ones by gallery row. Shapes: ``c`` queries of a block, ``G`` gallery, ``P`` positives
of the block. Similarities are finite, or -inf for what is excluded.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from marginlab.retrieval.ordered import Order, Spread, one_after_another

_SLAB = 2**16  # items sorted by one call: what of a row and its keys the second-level cache holds
ROW = 2**32 - 1  # the bits of a key that are the gallery row


@contextmanager
def threads() -> Iterator[Spread]:
    """Call a function for several inputs on as many threads as torch uses: numpy sorts without Python's lock."""
    n = torch.get_num_threads()
    if n == 1:
        yield one_after_another
    else:
        with ThreadPoolExecutor(n) as pool:
            yield lambda do, inputs: list(pool.map(do, inputs))


def few(c: int, g: int, p: int) -> bool:
    """Whether comparing P positives one by one costs less than sorting c rows.

    Measured: 2.5 us and 0.2 ns per item for a positive, 12 ns per item for a row that is sorted.
    """
    return p * (2500 + 0.2 * g) < c * 12 * g


def values(sim: Tensor, row: np.ndarray, col: np.ndarray) -> np.ndarray:
    return np.asarray(sim.numpy()[row, col])


def hide(sim: Tensor, row: np.ndarray, col: np.ndarray) -> None:
    """Make items rank behind all others."""
    sim.numpy()[row, col] = -np.inf


def best(sim: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """The column of each row's nearest item, the lower one of equals, and its similarity: [c] each."""
    column = sim.numpy().argmax(axis=1)
    return column, sim.numpy()[np.arange(len(column)), column]


def before(sim: Tensor, row: np.ndarray, value: np.ndarray, split: np.ndarray) -> np.ndarray:
    """How many items of a row rank before an item of similarity ``value`` at column ``split``: int64 [P].

    All that are nearer, and of those as near the ones left of it. One look at the row answers both.
    """
    rows = sim.numpy()
    nearer = np.empty(rows.shape[1], dtype=bool)
    out = np.empty(len(row), dtype=np.int64)
    for n, (j, i, v) in enumerate(zip(row.tolist(), split.tolist(), value, strict=True)):
        np.greater_equal(rows[j, :i], v, out=nearer[:i])
        np.greater(rows[j, i:], v, out=nearer[i:])
        out[n] = np.count_nonzero(nearer)
    return out


def keys(sim: np.ndarray, row: np.ndarray) -> np.ndarray:
    """Integers that sort as items rank: the similarity's bits, turned round, above the gallery row. int64, as ``sim``."""
    bits = np.subtract(np.float32(0), sim).view(np.int32)  # 0 - x makes -0.0 equal to 0.0
    bits ^= (bits >> 31) & np.int32(0x7FFFFFFF)  # negative floats descend as integers
    out = bits.astype(np.int64)
    out <<= 32
    out |= row
    return np.asarray(out)


def before_by_sorting(sim: Tensor, row: np.ndarray, key: np.ndarray, first: int, spread: Spread) -> np.ndarray:
    """As :func:`before` for items by their :func:`keys`, ``first`` being the gallery row of column 0; ``row`` ascends."""
    rows = sim.numpy()
    base = np.arange(first, first + rows.shape[1])
    place = np.searchsorted(row, np.arange(len(rows) + 1))
    out = np.empty(len(row), dtype=np.int64)

    def one(j: int) -> None:
        own = slice(place[j], place[j + 1])
        if own.start < own.stop:
            ordered = keys(rows[j], base)
            ordered.sort()
            out[own] = np.searchsorted(ordered, key[own])

    spread(one, range(len(rows)))
    return out


def order(
    sim: Tensor,
    q_code: np.ndarray,
    g_code: np.ndarray,
    admissible: np.ndarray,
    level: np.ndarray | None,
    spread: Spread,
) -> Order:
    """What one sort of each row says: see :class:`Order`. ``level`` [codes, codes] gives the grade of an item for a query."""
    rows = sim.numpy()
    c, g = rows.shape
    column = np.arange(g)
    right, wrong = np.full(c, -1), np.full(c, -1)
    grade = None if level is None else np.zeros((c, g), dtype=np.uint8)
    step = max(1, _SLAB // max(1, g))
    ranks: dict[int, np.ndarray] = {}

    def slab(at: int) -> None:
        ordered = keys(rows[at : at + step], column)
        ordered.sort(axis=1)
        ordered &= ROW
        code = g_code.take(ordered, mode="clip")  # needs no look at whether they are in range
        own, most = q_code[at : at + step], admissible[at : at + step]
        match = code == own[:, None]
        if most.min() < g:  # what is hidden stands last
            match &= column < most[:, None]
        flat = np.flatnonzero(match)
        begin = np.searchsorted(flat, np.arange(len(own) + 1) * g)
        ranks[at] = flat.astype(np.int32)
        ranks[at] -= np.repeat((np.arange(len(own)) * g - 1).astype(np.int32), np.diff(begin))
        found = np.flatnonzero(np.diff(begin))
        right[at + found] = ordered.reshape(-1)[flat[begin[found]]]
        other = match.argmin(axis=1)
        found = np.flatnonzero((other < most) & (np.diff(begin) < most))
        wrong[at + found] = ordered[found, other[found]]
        if grade is not None and level is not None:
            for j, (q, n) in enumerate(zip(own.tolist(), most.tolist(), strict=True)):
                np.take(level[q], code[j, :n], out=grade[at + j, :n], mode="clip")

    slabs = range(0, c, step)
    spread(slab, slabs)
    return Order(np.concatenate([ranks[at] for at in slabs]), right, wrong, grade)
