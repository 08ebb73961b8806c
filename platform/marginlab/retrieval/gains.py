"""Graded relevance: what a gallery item of one label is worth to a query of another, as small codes."""

from __future__ import annotations

import numpy as np

from marginlab.retrieval.matches import Matches
from marginlab.values import InputError

_MOST = 256  # distinct gains: a grade is a byte


def grades(
    gain: np.ndarray | None, matches: Matches, q_label: np.ndarray, g_label: np.ndarray
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """The distinct gains, ascending from 0, and the grade of each pair of label codes, uint8 [codes, codes]."""
    if gain is None:
        return None, None
    table = np.asarray(gain, dtype=np.float64)
    if table.ndim != 2 or table.shape[0] != table.shape[1] or not (np.isfinite(table) & (table >= 0)).all():
        raise InputError("Gains must be a square table of finite numbers from 0 up: [query label, gallery label].")
    labels = matches.labels
    if not np.issubdtype(labels.dtype, np.integer) or (len(labels) and not 0 <= labels[0] <= labels[-1] < len(table)):
        raise InputError(
            f"With gains for {len(table)} labels, every label must be an integer from 0 to {len(table) - 1}."
        )
    gains, code = np.unique(np.append(table, 0.0), return_inverse=True)
    if len(gains) > _MOST:
        raise InputError(f"There are {len(gains)} different gains; {_MOST} are possible.")
    level = code[:-1].reshape(table.shape).astype(np.uint8)
    return gains, level[np.ix_(labels, labels)]
