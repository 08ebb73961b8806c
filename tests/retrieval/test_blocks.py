from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from marginlab.retrieval import Ranking, blocks, on_cpu, unit
from tests.retrieval.oracle import check, corner_points, same, similarities, tie_free


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    n_query=st.integers(1, 12),
    n_gallery=st.integers(1, 25),
    labels=st.integers(1, 5),
    visits=st.integers(0, 3),
    chunk=st.sampled_from([None, 1, 3]),
    by=st.sampled_from(["auto", "count", "sort"]),
    seed=st.integers(0, 2**31),
)
def test_against_one_plain_sort_per_query_with_many_ties(device, n_query, n_gallery, labels, visits, chunk, by, seed):
    rng = np.random.default_rng(seed)
    q, g = corner_points(rng, n_query), corner_points(rng, n_gallery)
    ql, gl = rng.integers(0, labels, n_query), rng.integers(0, labels, n_gallery)
    visit = (rng.integers(0, visits, n_query), rng.integers(0, visits, n_gallery)) if visits else (None, None)
    ranking = Ranking.of(q.to(device), g.to(device), ql, gl, *visit, chunk=chunk, by=by)
    check(ranking, similarities(q, g), ql, gl, *visit)


@pytest.mark.parametrize("by", ["count", "sort"])
def test_counting_sorting_and_block_size_give_one_result(by, device):
    x, label, rng = tie_free()
    x = x.to(device)
    visit = rng.integers(0, 3, len(x))
    whole = Ranking.of(x, x, label, label, visit, visit)
    for chunk in (1, 7, 64, 1000):
        assert same(whole, Ranking.of(x, x, label, label, visit, visit, chunk=chunk, by=by))


def test_several_threads_give_the_same_result():
    x, label, rng = tie_free(600, 5)
    visit = rng.integers(0, 50, 600)
    one = Ranking.of(x, x, label, label, visit, visit, by="sort")
    torch.set_num_threads(2)
    try:
        assert same(one, Ranking.of(x, x, label, label, visit, visit, by="sort", chunk=100))
    finally:
        torch.set_num_threads(1)


@pytest.mark.parametrize("by", ["count", "sort"])
def test_all_similarities_equal_rank_by_row(by, device):
    x = torch.ones(5, 3, device=device)
    ranking = Ranking.of(x[:1], x, np.array([1]), np.array([0, 1, 0, 1, 0]), by=by)
    assert (ranking.ranks.tolist(), ranking.right.tolist(), ranking.wrong.tolist()) == ([2, 4], [1], [0])


@pytest.mark.parametrize("by", ["count", "sort"])
def test_negative_zero_ties_with_zero(by, device):
    gallery = torch.tensor([[0.0, 1.0], [-0.0, -1.0], [0.0, 1.0]], device=device)
    query = torch.tensor([[1.0, -0.0]], device=device)
    ranking = Ranking.of(query, gallery, np.array([1]), np.array([0, 1, 1]), by=by)
    assert ranking.ranks.tolist() == [2, 3]


@pytest.mark.parametrize("by", ["count", "sort"])
def test_one_gallery_item_one_positive_and_nothing_but_positives(by, device):
    x, _, _ = tie_free(6)
    x = x.to(device)
    one = Ranking.of(x, x[:1], np.array([0, 1, 0, 1, 0, 1]), np.array([0]), by=by)
    assert (one.map(), one.unmatched, one.ranks.tolist()) == (1.0, 3, [1, 1, 1])
    assert (one.right.tolist(), one.wrong.tolist()) == ([0, -1] * 3, [-1] * 6)
    full = Ranking.of(x, x, np.zeros(6, int), np.zeros(6, int), by=by)
    assert (full.map(), full.map_at_r(), full.cmc_allshots(1), full.recall_at(3), full.ndcg()) == (1, 1, 1, 0.5, 1)
    assert full.ranks.reshape(6, 6).tolist() == [[1, 2, 3, 4, 5, 6]] * 6
    assert full.wrong.tolist() == [-1] * 6


@pytest.mark.parametrize("by", ["count", "sort"])
def test_identities_of_one_image_have_no_match_once_the_image_itself_is_excluded(by, device):
    x, _, _ = tie_free(6)
    every = np.arange(6)
    ranking = Ranking.of(x.to(device), x.to(device), every, every, every, every, by=by)
    assert (ranking.unmatched, len(ranking.ranks), ranking.admissible.tolist()) == (6, 0, [5] * 6)
    assert np.isnan(ranking.map()) and ranking.worst() == []


@pytest.mark.parametrize("by", ["count", "sort"])
def test_a_hundred_thousand_gallery_images(by, device):
    """Few queries, every gallery image there twice, ranks beyond 16 bits; one query whose whole gallery is equally near."""
    rng = np.random.default_rng(0)
    half = rng.choice([-1.0, 1.0], (50_000, 16)).astype(np.float32)
    g = np.concatenate([half, half])
    q = np.concatenate([half[:5], np.zeros((1, 16), np.float32)])
    gl = rng.integers(0, 20_000, 100_000)
    gl[50_000:50_800] = gl[0]  # R = 800 for one query, about 5 for the others
    ql = np.concatenate([gl[:5], gl[7:8]])
    ranking = Ranking.of(torch.from_numpy(q).to(device), torch.from_numpy(g).to(device), ql, gl, by=by)
    sim = similarities(q, g)
    for i in range(6):
        order = np.lexsort((np.arange(100_000), -sim[i]))
        place = np.flatnonzero(gl[order] == ql[i])
        assert np.array_equal(ranking.ranks[ranking.offsets[i] : ranking.offsets[i + 1]], place + 1)
        assert ranking.right[i] == order[place[0]]
        assert ranking.wrong[i] == order[np.flatnonzero(gl[order] != ql[i])[0]]
    assert ranking.ranks.max() > np.iinfo(np.int16).max


def test_the_same_visit_is_as_if_absent(device):
    """Query 0 is found at once through its own visit's other image; without it, the next of its label is third."""
    x = torch.tensor([[1.0, 0, 0], [0.99, 0.1, 0], [0.8, 0.6, 0], [0.9, 0, 0.4], [0.95, 0.3, 0]], device=device)
    label, visit = np.array([7, 7, 7, 3, 3]), np.array([0, 0, 1, 0, 1])
    ranking = Ranking.of(x[:1], x, label[:1], label, visit[:1], visit)
    assert (ranking.ranks.tolist(), ranking.admissible.tolist()) == ([3], [3])
    assert (ranking.right.tolist(), ranking.wrong.tolist()) == ([2], [4])


def test_ranks_take_two_bytes_where_they_fit():
    x = np.ones((40_000, 1), np.float32)
    label = np.arange(40_000)
    assert Ranking.of(x[:2], x[:30_000], label[:2], label[:30_000]).ranks.dtype == np.int16
    assert Ranking.of(x[:2], x, label[:2], label).ranks.dtype == np.int32


def test_positives_decide_how_ranks_are_found(monkeypatch):
    """Two labels of very different size: each block takes the way that costs less."""
    label = np.repeat([0, 1], [3000, 2]).astype(int)
    x = unit(torch.from_numpy(np.random.default_rng(0).normal(size=(3002, 8))))
    ways = []
    for name, module in (("count", blocks), ("sort", blocks)):
        attribute = "by_counting" if name == "count" else "_by_sorting"
        real = getattr(module, attribute)
        monkeypatch.setattr(module, attribute, lambda *a, n=name, f=real: (ways.append(n), f(*a))[1])
    Ranking.of(x[[0, 1, 3000, 3001]], x, label[[0, 1, 3000, 3001]], label, chunk=2)
    assert ways == ["count", "sort"]  # fewest positives first
    assert on_cpu.few(100, 20_000, 300) and not on_cpu.few(100, 20_000, 30_000)


def test_low_precision_training_settings_do_not_reach_the_ranking():
    x, label, _ = tie_free()
    image = np.arange(len(x))
    plain = Ranking.of(x, x, label, label, image, image)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert same(Ranking.of(x, x, label, label, image, image), plain)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)
