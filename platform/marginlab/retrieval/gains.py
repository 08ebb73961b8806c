"""Graded relevance: what a gallery item of one label is worth to a query of another. Grades are bytes, 0 is worth nothing.

Shapes: ``Q`` queries, ``G`` gallery, ``n`` different gains.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from marginlab.retrieval.matches import Matches
from marginlab.values import InputError

_MOST = 256  # distinct gains: a grade is a byte


@dataclass(frozen=True, eq=False)
class Graded:
    """The grades of all items in the order of a ranking."""

    at: np.ndarray  # uint8 [Q, G], the grade of the item at each rank; 0 beyond the admissible ones
    count: np.ndarray  # int64 [Q, n], admissible items of each grade
    gains: np.ndarray  # float64 [n], of each grade, ascending from 0

    def __post_init__(self) -> None:
        for f in fields(self):
            getattr(self, f.name).setflags(write=False)

    def select(self, mask: np.ndarray) -> Graded:
        return Graded(self.at[mask], self.count[mask], self.gains)


@dataclass(frozen=True, eq=False)
class Scale:
    """Grades by pair of label codes."""

    level: np.ndarray  # uint8 [codes, codes], of a query's code and an item's
    gains: np.ndarray  # float64 [n]

    @classmethod
    def of(cls, gain: np.ndarray, matches: Matches) -> Scale:
        """From ``gain[query label, gallery label]``, labels being 0 .. L-1."""
        table = np.asarray(gain, dtype=np.float64)
        if table.ndim != 2 or table.shape[0] != table.shape[1] or not (np.isfinite(table) & (table >= 0)).all():
            raise InputError("Gains must be a square table of finite numbers from 0 up: [query label, gallery label].")
        labels, last = matches.labels, len(table) - 1
        if len(labels) and not (np.issubdtype(labels.dtype, np.integer) and 0 <= labels[0] <= labels[-1] <= last):
            raise InputError(f"With gains for {len(table)} labels, every label must be an integer from 0 to {last}.")
        gains, code = np.unique(np.append(table, 0.0), return_inverse=True)
        if len(gains) > _MOST:
            raise InputError(f"There are {len(gains)} different gains; {_MOST} are possible.")
        level = code[:-1].reshape(table.shape).astype(np.uint8)
        return cls(level[np.ix_(labels, labels)], gains)

    def count(self, matches: Matches) -> np.ndarray:
        """Admissible items of each grade for each query: int64 [Q, n]."""
        codes = len(self.level)
        items = np.bincount(matches.g_code, minlength=codes)
        by_code = np.zeros((codes, len(self.gains)), dtype=np.int64)
        np.add.at(by_code, (np.arange(codes)[:, None], self.level), items)
        own = self.level[matches.q_code, matches.q_code]  # what is excluded has the query's own label
        out = by_code[matches.q_code]
        out[np.arange(len(matches)), own] -= matches.excluded
        return np.asarray(out)
