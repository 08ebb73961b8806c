from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from marginlab.retrieval import Ranking, streaming
from marginlab.values import InputError
from tests.retrieval.oracle import corner_points, same, tie_free

GAIN = np.maximum(0.0, 2 - np.abs(np.subtract.outer(np.arange(5), np.arange(5))))


def cut(x, *at):
    """The rows of ``x`` as parts, anew at every call."""
    return lambda: iter(torch.tensor_split(x, at))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    n_query=st.integers(1, 12),
    n_gallery=st.integers(1, 25),
    labels=st.integers(1, 5),
    visits=st.integers(0, 3),
    cuts=st.lists(st.integers(0, 25), max_size=4),
    positives=st.sampled_from([None, 1, 9]),
    graded=st.booleans(),
    few=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_a_gallery_in_parts_is_the_gallery(
    device, monkeypatch, n_query, n_gallery, labels, visits, cuts, positives, graded, few, seed
):
    rng = np.random.default_rng(seed)
    q, g = corner_points(rng, n_query).to(device), corner_points(rng, n_gallery).to(device)
    ql, gl = rng.integers(0, labels, n_query), rng.integers(0, labels, n_gallery)
    visit = (rng.integers(0, visits, n_query), rng.integers(0, visits, n_gallery)) if visits else (None, None)
    gain = GAIN if graded else None
    monkeypatch.setattr(streaming.rows_on(torch.device("cpu")), "few", lambda c, g, p: few)
    parts = cut(g, *sorted(min(c, n_gallery) for c in cuts))
    streamed = Ranking.of_parts(q, parts, ql, gl, *visit, gain=gain, positives=positives)
    assert same(streamed, Ranking.of(q, g, ql, gl, *visit, gain=gain))


def test_parts_in_many_small_products(device, monkeypatch):
    x, label, rng = tie_free()
    visit = rng.integers(0, 3, len(x))
    whole = Ranking.of(x.to(device), x.to(device), label, label, visit, visit)
    monkeypatch.setattr(streaming, "block_bytes", lambda device: 4 * 100 * 7)
    assert same(whole, Ranking.of_parts(x.to(device), cut(x, 100, 130), label, label, visit, visit))


def test_the_gallery_is_read_twice_for_each_turn():
    x, label, _ = tie_free(60, 6)
    reads = []

    def parts():
        reads.append(0)
        for part in torch.tensor_split(x, 4):
            reads[-1] += len(part)
            yield part

    Ranking.of_parts(x, parts, label, label)
    assert reads == [60, 60]
    Ranking.of_parts(x, parts, label, label, positives=int(np.bincount(label)[label].sum()) // 2 + 20)
    assert reads == [60] * 6


@pytest.mark.parametrize(
    ("parts", "sentence"),
    [
        (cut(torch.ones(9, 3), 4), "do not have the 10 rows"),
        (cut(torch.ones(11, 3), 4), "do not have the 10 rows"),
        (cut(torch.ones(10, 2), 4), "D = 3, but a part of the gallery has D = 2"),
        (cut(torch.full((10, 3), torch.nan), 4), "NaN or infinity"),
    ],
)
def test_refusals(parts, sentence):
    with pytest.raises(InputError, match=sentence):
        Ranking.of_parts(torch.ones(2, 3), parts, np.zeros(2), np.zeros(10))
