from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator
from sklearn.metrics import average_precision_score

from marginlab import retrieval
from marginlab.data.subset import Subset
from marginlab.retrieval import Ranking, concatenate, protocol_scores, unit, validation_scores
from marginlab.values import InputError

torch.set_num_threads(1)


def brute_ranks(sim, q_label, g_label, q_visit=None, g_visit=None):
    """For each query: ranks of its positives, and how many items compete. One plain sort per query, ties by row."""
    ranks, admissible = [], []
    for q in range(len(sim)):
        items = [
            g for g in range(len(g_label)) if q_visit is None or g_label[g] != q_label[q] or g_visit[g] != q_visit[q]
        ]
        items.sort(key=lambda g: (-sim[q, g], g))
        ranks.append([i + 1 for i, g in enumerate(items) if g_label[g] == q_label[q]])
        admissible.append(len(items))
    return ranks, admissible


def from_order(*orders: str) -> Ranking:
    """A ranking as it is drawn: ``from_order("+-+-")`` has positives at ranks 1 and 3 of 4."""
    ranks = [[i + 1 for i, c in enumerate(order) if c == "+"] for order in orders]
    offsets = np.concatenate([[0], np.cumsum([len(r) for r in ranks])])
    return Ranking(
        np.array([r for one in ranks for r in one], dtype=np.int32), offsets, np.array([len(o) for o in orders])
    )


def same(a: Ranking, b: Ranking) -> bool:
    return all(np.array_equal(getattr(a, f), getattr(b, f)) for f in ("ranks", "offsets", "admissible"))


def corner_points(rng, n, d=4):
    """Rows of +-1: their products with each other are exact in any order of summation, and full of ties."""
    return torch.from_numpy(rng.choice([-1.0, 1.0], (n, d)).astype(np.float32))


@settings(max_examples=60, deadline=None)
@given(
    n_query=st.integers(1, 12),
    n_gallery=st.integers(1, 25),
    labels=st.integers(1, 5),
    visits=st.integers(0, 3),
    chunk=st.sampled_from([None, 1, 3]),
    by=st.sampled_from(["auto", "count", "sort"]),
    seed=st.integers(0, 2**31),
)
def test_against_one_plain_sort_per_query_with_many_ties(n_query, n_gallery, labels, visits, chunk, by, seed):
    rng = np.random.default_rng(seed)
    q, g = corner_points(rng, n_query), corner_points(rng, n_gallery)
    ql, gl = rng.integers(0, labels, n_query), rng.integers(0, labels, n_gallery)
    visit = (rng.integers(0, visits, n_query), rng.integers(0, visits, n_gallery)) if visits else (None, None)
    ranking = Ranking.of(q, g, ql, gl, *visit, chunk=chunk, by=by)
    ranks, admissible = brute_ranks((unit(q) @ unit(g).T).numpy(), ql, gl, *visit)
    assert [list(r) for r in np.split(ranking.ranks, ranking.offsets[1:-1])] == ranks
    assert ranking.admissible.tolist() == admissible
    assert ranking.r.tolist() == [len(r) for r in ranks]
    assert ranking.unmatched == sum(not r for r in ranks)


def tie_free(n=240, labels=30, d=16, spread=0.6, seed=0):
    rng = np.random.default_rng(seed)
    label = rng.integers(0, labels, n)
    x = rng.normal(size=(labels, d))[label] * spread + rng.normal(size=(n, d))
    return torch.from_numpy(x.astype(np.float32)), label, rng


@pytest.mark.parametrize("by", ["count", "sort"])
def test_counting_sorting_and_block_size_give_one_result(by):
    x, label, rng = tie_free()
    visit = rng.integers(0, 3, len(x))
    whole = Ranking.of(x, x, label, label, visit, visit)
    for chunk in (1, 7, 64, 1000):
        assert same(whole, Ranking.of(x, x, label, label, visit, visit, chunk=chunk, by=by))


def test_average_precision_is_scikit_learns():
    x, label, _ = tie_free()
    image = np.arange(len(x))
    ap = Ranking.of(x, x, label, label, image, image).ap()
    sim = (unit(x) @ unit(x).T).numpy()
    for q in range(0, len(x), 5):
        others = image != q
        assert ap[q] == pytest.approx(average_precision_score(label[others] == label[q], sim[q, others]), abs=1e-12)


def test_map_at_r_and_friends_are_those_of_pytorch_metric_learning():
    x, label, _ = tie_free()
    image = np.arange(len(x))
    ranking = Ranking.of(x, x, label, label, image, image)

    def exact_search(query, k, reference, ref_includes_query):
        sim = unit(query) @ unit(reference).T
        assert ref_includes_query
        top = sim.fill_diagonal_(-2).topk(k)
        return -top.values, top.indices

    wanted = (
        "mean_average_precision_at_r",
        "precision_at_1",
        "r_precision",
        "mean_average_precision",
        "mean_reciprocal_rank",
    )
    pml = AccuracyCalculator(wanted, k=len(x) - 1, knn_func=exact_search, device=torch.device("cpu"))
    theirs = pml.get_accuracy(x, torch.from_numpy(label))
    assert ranking.map_at_r() == pytest.approx(theirs["mean_average_precision_at_r"], abs=1e-9)
    assert ranking.precision_at(1) == pytest.approx(theirs["precision_at_1"], abs=1e-9)
    assert ranking.cmc(1) == pytest.approx(theirs["precision_at_1"], abs=1e-9)
    assert ranking.r_precision() == pytest.approx(theirs["r_precision"], abs=1e-9)
    assert ranking.map() == pytest.approx(theirs["mean_average_precision"], abs=1e-9)
    assert ranking.mrr() == pytest.approx(theirs["mean_reciprocal_rank"], abs=1e-6)  # PML works in float32 here


def test_values_worked_out_by_hand():
    r = from_order("+-+-")
    assert r.cmc_allshots(1) == 0.5  # run in open-reid
    assert r.cmc_allshots(2) == 1
    assert r.map() == pytest.approx((1 + 2 / 3) / 2)
    assert r.map_at_r() == 0.5
    assert r.r_precision() == 0.5
    assert (r.precision_at(3), r.recall_at(1), r.recall_at(3), r.mrr(), r.cmc(1)) == (2 / 3, 0.5, 1, 1, 1)
    r = from_order("-++-")
    assert r.cmc_allshots(1) == 0  # run in open-reid
    assert r.cmc_allshots(2) == 1
    assert r.map() == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert (r.map_at_r(), r.cmc(1), r.cmc(2), r.mrr(), r.r_precision()) == (0.25, 0, 1, 0.5, 0.5)


def open_reid_cmc(order: str, topk: int) -> np.ndarray:
    """open-reid's ``cmc`` for one query, first_match_break=False, as it is written there."""
    index = np.nonzero([c == "+" for c in order])[0]
    ret = np.zeros(topk)
    for j, k in enumerate(index):
        if k - j >= topk:
            break
        ret[k - j] += 1.0 / len(index)
    return ret.cumsum()


def test_allshots_is_open_reids_loop_and_never_above_map_at_r_at_one():
    rng = np.random.default_rng(1)
    for _ in range(50):
        order = "".join(rng.choice(["+", "-"], 12, p=[0.3, 0.7])) + "+"
        r = from_order(order)
        assert [r.cmc_allshots(k) for k in (1, 2, 3, 13)] == pytest.approx(open_reid_cmc(order, 13)[[0, 1, 2, 12]])
        assert r.map_at_r() >= r.cmc_allshots(1) - 1e-12


def test_all_similarities_equal_rank_by_row():
    x = torch.ones(5, 3)
    for by in ("count", "sort"):
        ranking = Ranking.of(x[:1], x, np.array([1]), np.array([0, 1, 0, 1, 0]), by=by)
        assert ranking.ranks.tolist() == [2, 4]


def test_negative_zero_ties_with_zero():
    gallery = torch.tensor([[0.0, 1.0], [-0.0, -1.0], [0.0, 1.0]])
    for by in ("count", "sort"):
        ranking = Ranking.of(torch.tensor([[1.0, -0.0]]), gallery, np.array([1]), np.array([0, 1, 1]), by=by)
        assert ranking.ranks.tolist() == [2, 3]


def test_one_gallery_item_one_positive_and_nothing_but_positives():
    x, _, _ = tie_free(6)
    one = Ranking.of(x, x[:1], np.array([0, 1, 0, 1, 0, 1]), np.array([0]))
    assert (one.map(), one.unmatched, one.ranks.tolist()) == (1.0, 3, [1, 1, 1])
    full = Ranking.of(x, x, np.zeros(6, int), np.zeros(6, int))
    assert (full.map(), full.map_at_r(), full.cmc_allshots(1), full.recall_at(3)) == (1, 1, 1, 0.5)
    assert full.ranks.reshape(6, 6).tolist() == [[1, 2, 3, 4, 5, 6]] * 6


def test_the_same_visit_is_as_if_absent():
    """Query 0 is found at once through its own visit's other image; without it, the next of its label is third."""
    x = torch.tensor([[1.0, 0, 0], [0.99, 0.1, 0], [0.8, 0.6, 0], [0.9, 0, 0.4], [0.95, 0.3, 0]])
    label, visit = np.array([7, 7, 7, 3, 3]), np.array([0, 0, 1, 0, 1])
    ranking = Ranking.of(x[:1], x, label[:1], label, visit[:1], visit)
    assert (ranking.ranks.tolist(), ranking.admissible.tolist()) == ([3], [3])


def test_queries_without_a_match_count_and_stay_out_of_means():
    r = from_order("+-", "--", "-+")
    assert (len(r), r.unmatched, r.map(), r.cmc(1)) == (3, 1, 0.75, 0.5)
    assert np.isnan(r.ap()).tolist() == [False, True, False]
    assert np.isnan(from_order("--").map())
    assert r.hits(1).tolist()[::2] == [1, 0]


def test_select_keeps_queries_and_refuses_anything_but_a_mask():
    r = from_order("+-+-", "--", "-+", "++")
    part = r.select(np.array([True, True, False, True]))
    assert same(part, from_order("+-+-", "--", "++"))
    assert same(r.select(np.zeros(4, bool)), from_order())
    with pytest.raises(InputError, match="one bool per query"):
        r.select(np.array([0, 1]))


def test_a_ranking_cannot_be_changed():
    r = from_order("+-")
    with pytest.raises(ValueError, match="read-only"):
        r.ranks[0] = 5
    with pytest.raises(AttributeError):
        r.ranks = np.array([5])


def test_cosine_of_the_concatenation_is_the_mean_of_the_models_cosines():
    rng = np.random.default_rng(0)
    models = [torch.from_numpy(rng.normal(size=(9, d)) * 3) for d in (4, 8, 8)]
    joint = concatenate(models)
    mean = torch.stack([unit(m) @ unit(m).T for m in models]).mean(0)
    torch.testing.assert_close(unit(joint) @ unit(joint).T, mean, atol=1e-6, rtol=0)
    torch.testing.assert_close(joint.norm(dim=1), torch.ones(9))


def test_concatenation_survives_rotated_spaces_where_the_mean_does_not():
    x, label, rng = tie_free(200, 40, d=8, spread=2.0)
    x, image = unit(x), np.arange(200)
    turned = [x @ torch.from_numpy(np.linalg.qr(rng.normal(size=(8, 8)))[0].astype(np.float32)) for _ in range(5)]

    def quality(e):
        return Ranking.of(e, e, label, label, image, image).map()

    assert quality(concatenate(turned)) == pytest.approx(quality(x), abs=1e-3)
    assert quality(torch.stack(turned).mean(0)) < quality(x) - 0.1


def toy_subset():
    """Three subjects; subject 2 has no later visit, and subject 1's only later visit is at 24 months."""
    label = np.array([0, 0, 0, 1, 1, 2])
    months = np.array([0, 12, 12, 0, 24, 0], dtype=np.float32)
    return Subset(
        pixels=np.zeros((6, 1, 2, 2), np.uint8),
        rows=np.arange(6),
        label=label,
        visit=np.array([0, 1, 1, 2, 3, 4]),
        months=months,
        gallery=months == 0,
        query=months > 0,
    )


def angles(*degrees):
    a = torch.deg2rad(torch.tensor(degrees, dtype=torch.float32))
    return torch.stack([torch.cos(a), torch.sin(a)], dim=1)


def test_scores_worked_out_by_hand():
    # gallery: 0 (subject 0) at 0 deg, 3 (subject 1) at 50, 5 (subject 2) at 90
    # query 1 (subject 0) at 10: 0, 3, 5 -> rank 1; query 2 (subject 0) at 60: 3, 5, 0 -> rank 3; query 4 (1) at 80: 5, 3, 0 -> 2
    subset, x = toy_subset(), angles(0, 10, 60, 50, 80, 90)
    out = protocol_scores(x, subset)
    assert out["map_12m"] == pytest.approx((1 + 1 / 3) / 2)
    assert out["map_24m"] == pytest.approx(1 / 2)
    assert out["map"] == pytest.approx((1 + 1 / 3 + 1 / 2) / 3)
    assert (out["cmc_1_12m"], out["cmc_1_24m"], out["cmc_1"]) == pytest.approx((0.5, 0, 1 / 3))
    assert (out["cmc_allshots_1"], out["map_at_r"]) == pytest.approx((1 / 3, 1 / 3))
    whole = Ranking.of(x, x, *[subset.label] * 2, *[subset.visit] * 2)
    assert whole.unmatched == 1
    among_all = validation_scores(x, subset)
    assert (among_all["map"], among_all["map_at_r"]) == (whole.map(), whole.map_at_r())
    assert (among_all["cmc_1"], among_all["cmc_allshots_1"]) == (whole.cmc(1), whole.cmc_allshots(1))
    assert {k: v for k, v in among_all.items() if k.endswith("m")} == {k: out[k] for k in ("map_12m", "map_24m")}


def test_scores_leave_out_what_has_no_match():
    subset = toy_subset()
    rows = np.array([0, 1, 4, 5])  # subject 1's query stays, its gallery image is gone
    part = Subset(
        subset.pixels, *(getattr(subset, f)[rows] for f in ("rows", "label", "visit", "months", "gallery", "query"))
    )
    out = protocol_scores(angles(0, 10, 80, 90), part)
    assert "map_24m" not in out
    assert "map_12m" in out
    assert not any(np.isnan(v) for v in out.values())
    alone = Subset(
        subset.pixels, *(getattr(subset, f)[5:] for f in ("rows", "label", "visit", "months", "gallery", "query"))
    )
    assert protocol_scores(angles(90), alone) == validation_scores(angles(90), alone) == {}


def test_scores_are_the_same_in_small_blocks(monkeypatch):
    x, label, rng = tie_free(60, 8)
    months = rng.choice([0, 12, 24], 60).astype(np.float32)
    subset = Subset(np.zeros((60, 1, 1, 1)), np.arange(60), label, months.astype(int), months, months == 0, months > 0)
    whole = protocol_scores(x, subset) | validation_scores(x, subset)
    monkeypatch.setattr(retrieval, "_POSITIVES_AT_ONCE", 50)
    again = protocol_scores(x.numpy(), subset) | validation_scores(x.numpy(), subset)
    assert again == pytest.approx(whole, abs=1e-12)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"query": torch.ones(2, 3)}, "with one D"),
        ({"query_label": np.zeros(3, int)}, "query_label has 3 entries for 2 embeddings"),
        ({"gallery_visit": np.zeros(4, int)}, "visits of both"),
        ({"query": torch.full((2, 2), torch.nan)}, "NaN or infinity"),
        ({"by": "guess"}, "not 'guess'"),
    ],
)
def test_refusals(change, sentence):
    how = {
        "query": torch.ones(2, 2),
        "gallery": torch.ones(4, 2),
        "query_label": np.zeros(2),
        "gallery_label": np.zeros(4),
    }
    with pytest.raises(InputError, match=sentence):
        Ranking.of(**{**how, **change})
    with pytest.raises(InputError, match="same images"):
        concatenate([torch.ones(2, 2), torch.ones(3, 2)])
    with pytest.raises(InputError, match="at least one"):
        concatenate([])
    with pytest.raises(InputError, match="2 embeddings for 6 images"):
        protocol_scores(torch.ones(2, 2), toy_subset())


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
