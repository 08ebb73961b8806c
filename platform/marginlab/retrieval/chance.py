"""What a random order of the gallery would score: where few grades are to be found, that is far from nothing."""

from __future__ import annotations

import numpy as np

KS = (5, 10, 20, 50)


def by_chance(query_label: np.ndarray, gallery_label: np.ndarray) -> dict[str, float]:
    """The expected ``mhr_at_K`` and ``map_at_K`` (K as in ``KS``) of a random order, mean over the queries that have a match.

    With M of G gallery images right, an image is right with probability p = M / G, and an earlier one besides with
    q = (M - 1) / (G - 1): precision at k times relevance at k is p (1 + (k - 1) q) / k on average, and AP@K the mean of that over k <= K.
    """
    labels, counts = np.unique(gallery_label, return_counts=True)
    found = dict(zip(labels.tolist(), counts.tolist(), strict=True))
    right = np.array([found.get(label, 0) for label in np.asarray(query_label).tolist()], dtype=float)
    right, whole = right[right > 0], len(gallery_label)
    if not len(right):
        return {}
    p, q = right / whole, (right - 1) / max(whole - 1, 1)
    out = {}
    for k in KS:
        places = np.arange(1, k + 1)
        out[f"mhr_at_{k}"] = float(p.mean())
        out[f"map_at_{k}"] = float((p[:, None] * (1 + (places - 1) * q[:, None]) / places).mean())
    return out
