"""Which gallery items answer a query, and which are out of its sight. Integers alone: no embeddings.

Gallery rows are held in the order (label, visit, row), so that the items of a query's label are one slice of it and those
of the same visit a slice within: nothing here is as large as Q x G.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from marginlab.values import InputError


@dataclass(frozen=True, eq=False)
class Matches:
    """A match (positive) is a gallery item of the query's label from another visit; the same visit's are excluded."""

    labels: np.ndarray  # the distinct labels, ascending; codes are their positions
    q_code: np.ndarray  # int32 [Q]
    g_code: np.ndarray  # int32 [G]
    order: np.ndarray  # int64 [G], gallery rows by (label, visit, row)
    start: np.ndarray  # int64 [Q], the items of the query's label are order[start:stop]
    stop: np.ndarray
    out_start: np.ndarray  # int64 [Q], the excluded ones are order[out_start:out_stop], within that
    out_stop: np.ndarray

    @classmethod
    def of(
        cls, q_label: np.ndarray, g_label: np.ndarray, q_visit: np.ndarray | None, g_visit: np.ndarray | None
    ) -> Matches:
        if (q_visit is None) != (g_visit is None):
            raise InputError("Give the visits of both queries and gallery, or of neither.")
        labels, q, g = _codes(q_label, g_label)
        if q_visit is None or g_visit is None:
            order = np.argsort(g, kind="stable")
            start, stop = _slices(g[order], q)
            return cls(labels, q, g, order, start, stop, start, start)
        visits, qv, gv = _codes(q_visit, g_visit)
        order = np.lexsort((gv, g))
        start, stop = _slices(g[order], q)
        pair = g[order].astype(np.int64) * len(visits) + gv[order]
        return cls(labels, q, g, order, start, stop, *_slices(pair, q.astype(np.int64) * len(visits) + qv))

    def __len__(self) -> int:
        return len(self.start)

    @property
    def same(self) -> np.ndarray:
        """Gallery items of the query's label, excluded ones too: int64 [Q]."""
        return np.asarray(self.stop - self.start)

    @property
    def excluded(self) -> np.ndarray:
        return np.asarray(self.out_stop - self.out_start)

    @cached_property
    def count(self) -> np.ndarray:
        """R, the number of matches: int64 [Q]."""
        return np.asarray(self.same - self.excluded)

    @property
    def admissible(self) -> np.ndarray:
        """Gallery items that compete: int64 [Q]."""
        return np.asarray(len(self.g_code) - self.excluded)

    def positives(self, own: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The matches of the queries ``own``: positions within ``own`` (ascending) and gallery rows, int64 [P] each."""
        row, at = _flat(self.start[own], self.count[own])
        at += np.where(at >= self.out_start[own][row], self.excluded[own][row], 0)
        return row, self.order[at]

    def left_out(self, own: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The excluded items of the queries ``own``, as :meth:`positives`."""
        row, at = _flat(self.out_start[own], self.excluded[own])
        return row, self.order[at]


def _codes(q: np.ndarray, g: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    distinct, code = np.unique(np.concatenate([np.asarray(q), np.asarray(g)]), return_inverse=True)
    code = code.reshape(-1).astype(np.int32)
    return distinct, code[: len(q)], code[len(q) :]


def _slices(ascending: np.ndarray, value: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.searchsorted(ascending, value, side="left"), np.searchsorted(ascending, value, side="right")


def _flat(start: np.ndarray, count: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The slices start:start + count one after another: which slice, and the position."""
    row = np.repeat(np.arange(len(count)), count)
    return row, np.arange(len(row)) + np.repeat(start - np.cumsum(count) + count, count)
