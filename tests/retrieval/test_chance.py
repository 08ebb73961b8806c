from __future__ import annotations

import numpy as np
import pytest

from marginlab.retrieval import Ranking, by_chance


def test_the_published_lists_of_eyepacs():
    """Grades 0 to 4 of the lists in FundusDR; what a random order scores on them was worked out when they were looked into."""
    query = np.repeat(np.arange(5), [5198, 480, 1031, 182, 131])
    gallery = np.repeat(np.arange(5), [20604, 1958, 4257, 690, 577])
    found = by_chance(query, gallery)
    assert found["mhr_at_10"] == found["mhr_at_50"] == pytest.approx(0.571, abs=5e-4)
    assert [found[f"map_at_{k}"] for k in (5, 10, 20, 50)] == pytest.approx([0.479, 0.452, 0.433, 0.417], abs=5e-4)


def test_the_mean_over_random_orders():
    """Embeddings that know nothing; query 4 has no match and is in no mean."""
    query, gallery = np.array([0, 0, 1, 2, 3]), np.repeat(np.arange(3), [6, 3, 1])
    rng, scores = np.random.default_rng(0), []
    for _ in range(800):
        x = rng.standard_normal((15, 24)).astype(np.float32)
        ranking = Ranking.of(x[:5], x[5:], query, gallery)
        scores.append([ranking.precision_at(5), ranking.map_at(5)])
    expected = by_chance(query, gallery)
    spread = np.std(scores, axis=0) / np.sqrt(len(scores))
    assert np.abs(np.mean(scores, axis=0) - [expected["mhr_at_5"], expected["map_at_5"]]).max() < 4 * spread.max()
    assert expected["mhr_at_5"] == pytest.approx((0.6 + 0.6 + 0.3 + 0.1) / 4)
    assert by_chance(np.array([7]), gallery) == {}
