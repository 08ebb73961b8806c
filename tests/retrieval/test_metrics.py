from __future__ import annotations

import numpy as np
import pytest
import torch
from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator
from sklearn.metrics import average_precision_score, ndcg_score

from marginlab.retrieval import Ranking, metrics, sums, unit
from marginlab.values import InputError
from tests.retrieval import oracle
from tests.retrieval.oracle import corner_points, from_order, tie_free

K = (1, 2, 3, 5, 50)
NAMES = [*metrics.KINDS, *(f"{kind}_{k}" for kind in metrics.KINDS_AT_K for k in K)]


@pytest.mark.parametrize("long", [0, sums._LONG, 10**9])
def test_every_metric_is_its_loop(monkeypatch, long):
    """Short lists of positives and long ones take different ways; so do single queries that fill a block."""
    rng = np.random.default_rng(0)
    rows = [rng.random(int(rng.integers(1, 30))) < p for p in (0.1, 0.5, 0.9) for _ in range(15)]
    rows += [np.ones(4, bool), np.zeros(3, bool), np.arange(12) == 11]
    monkeypatch.setattr(sums, "_LONG", long)
    monkeypatch.setattr(sums, "_AT_ONCE", 40)
    ranking = from_order(*("".join("+" if m else "-" for m in row) for row in rows))
    found = ranking.per_query(NAMES)
    for k in K:
        expected = [oracle.figures(row.tolist(), k) if row.any() else None for row in rows]
        for q, one in enumerate(expected):
            for name in oracle.figures([True], k):
                assert found[name][q] == pytest.approx(np.nan if one is None else one[name], abs=1e-12, nan_ok=True)
    matched = [q for q, row in enumerate(rows) if row.any()]
    assert ranking.figures(NAMES).means == pytest.approx({n: found[n][matched].mean() for n in NAMES}, abs=1e-12)


def test_values_worked_out_by_hand():
    r = from_order("+-+-")
    assert r.cmc_allshots(1) == 0.5  # run in open-reid
    assert r.cmc_allshots(2) == 1
    assert r.map() == pytest.approx((1 + 2 / 3) / 2)
    assert r.map_at_r() == 0.5
    assert r.r_precision() == 0.5
    assert (r.precision_at(3), r.recall_at(1), r.recall_at(3), r.mrr(), r.cmc(1)) == (2 / 3, 0.5, 1, 1, 1)
    assert r.map_at(3) == pytest.approx((1 + 2 / 3) / 3)  # divided by K, not by the hits
    assert r.ndcg() == pytest.approx((1 + 1 / 2) / (1 + 1 / np.log2(3)))
    assert r.ndcg(1) == 1
    r = from_order("-++-")
    assert r.cmc_allshots(1) == 0  # run in open-reid
    assert r.cmc_allshots(2) == 1
    assert r.map() == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert (r.map_at_r(), r.cmc(1), r.cmc(2), r.mrr(), r.r_precision(), r.map_at(1)) == (0.25, 0, 1, 0.5, 0.5, 0)


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


def cases():
    """Embeddings and labels: random, full of ties, one nearest neighbour each, nothing but positives, one odd image out."""
    x, label, rng = tie_free()
    return {
        "random": (x, label),
        "ties": (corner_points(rng, 80), rng.integers(0, 9, 80)),
        "all ties": (torch.ones(30, 4), rng.integers(0, 4, 30)),
        "R = 1": (x[:40], np.repeat(np.arange(20), 2)),
        "R = G": (x[:20], np.zeros(20, dtype=np.int64)),
        "identities of one image": (x[:40], np.minimum(np.arange(40), 37)),
    }


@pytest.mark.parametrize("case", cases())
def test_average_precision_and_ndcg_are_scikit_learns(case):
    """Scikit-learn averages over ties: it is given the order of the items in place of their similarity."""
    x, label = cases()[case]
    image = np.arange(len(x))
    ranking = Ranking.of(x, x, label, label, image, image)
    found = ranking.per_query(["map", "ndcg", "ndcg_at_5"])
    orders = oracle.admissible(oracle.similarities(x, x), label, label, image, image)
    for q in range(0, len(x), 5):
        match, score = label[orders[q]] == label[q], -np.arange(len(x) - 1.0)
        if not match.any():
            assert all(np.isnan(column[q]) for column in found.values())
            continue
        assert found["map"][q] == pytest.approx(average_precision_score(match, score), abs=1e-12)
        assert found["ndcg"][q] == pytest.approx(ndcg_score([match], [score], ignore_ties=True), abs=1e-12)
        assert found["ndcg_at_5"][q] == pytest.approx(ndcg_score([match], [score], k=5, ignore_ties=True), abs=1e-12)


@pytest.mark.parametrize("case", cases())
def test_map_at_r_and_friends_are_those_of_pytorch_metric_learning(case):
    x, label = cases()[case]
    image = np.arange(len(x))
    ranking = Ranking.of(x, x, label, label, image, image)

    def exact_search(query, k, reference, ref_includes_query):
        sim = unit(query) @ unit(reference).T
        assert ref_includes_query
        top = sim.fill_diagonal_(-2).sort(dim=1, descending=True, stable=True)
        return -top.values[:, :k], top.indices[:, :k]

    names = {
        "mean_average_precision_at_r": "map_at_r",
        "precision_at_1": "cmc_1",
        "r_precision": "r_precision",
        "mean_average_precision": "map",
        "mean_reciprocal_rank": "mrr",
    }
    pml = AccuracyCalculator(tuple(names), k=len(x) - 1, knn_func=exact_search, device=torch.device("cpu"))
    theirs = pml.get_accuracy(x, torch.from_numpy(label))
    ours = ranking.figures([*names.values(), "precision_at_1"]).means
    for name, own in names.items():
        tolerance = 1e-6 if own == "mrr" else 1e-9  # PML works in float32 there
        assert ours[own] == pytest.approx(theirs[name], abs=tolerance)
    assert ours["precision_at_1"] == ours["cmc_1"]


def graded(device="cpu", by="auto", seed=0):
    rng = np.random.default_rng(seed)
    q, g = corner_points(rng, 12).to(device), corner_points(rng, 40).to(device)
    ql, gl = rng.integers(0, 5, 12), rng.integers(0, 5, 40)
    visits = rng.integers(0, 4, 12), rng.integers(0, 4, 40)
    gain = np.maximum(0.0, 3 - np.abs(np.subtract.outer(np.arange(5), np.arange(5))))
    gain[4] = 0  # to a query of this label nothing is worth anything
    return Ranking.of(q, g, ql, gl, *visits, gain=gain, by=by), gain, q, g, ql, gl, visits


@pytest.mark.parametrize("by", ["auto", "count", "sort"])
def test_graded_relevance_is_scikit_learns_ndcg(device, by):
    ranking, gain, q, g, ql, gl, visits = graded(device, by)
    oracle.check(ranking, oracle.similarities(q.cpu(), g.cpu()), ql, gl, *visits)
    orders = oracle.admissible(oracle.similarities(q.cpu(), g.cpu()), ql, gl, *visits)
    found = ranking.per_query(["ndcg", "ndcg_at_1", "ndcg_at_7", "ndcg_at_99", "map"])
    for i, order in enumerate(orders):
        worth = gain[ql[i], gl[order]]
        for name, k in (("ndcg", None), ("ndcg_at_1", 1), ("ndcg_at_7", 7), ("ndcg_at_99", 99)):
            if ql[i] == 4:
                assert np.isnan(found[name][i])
            else:
                expected = ndcg_score([worth], [-np.arange(len(order))], k=k, ignore_ties=True)
                assert found[name][i] == pytest.approx(expected, abs=1e-12)
    assert (ql == 4).any() and not np.isnan(found["map"]).all()


def test_gains_of_one_for_the_own_label_are_the_plain_ndcg():
    x, label, _ = tie_free(60, 5)
    plain, ones = (Ranking.of(x, x, label, label, gain=gain) for gain in (None, np.eye(5)))
    names = ["ndcg", "ndcg_at_3", *NAMES]
    assert ones.figures(names).means == pytest.approx(plain.figures(names).means, abs=1e-12)


@pytest.mark.parametrize(
    ("gain", "labels", "sentence"),
    [
        (np.ones((2, 3)), [0, 1], "square table"),
        (-np.eye(2), [0, 1], "from 0 up"),
        (np.full((2, 2), np.nan), [0, 1], "finite"),
        (np.eye(2), [0, 2], "integer from 0 to 1"),
        (np.eye(2), [0.0, 1.0], "integer from 0 to 1"),
        (np.arange(400.0).reshape(20, 20), [0, 1], "256 are possible"),
    ],
)
def test_gains_that_make_no_sense_are_refused(gain, labels, sentence):
    with pytest.raises(InputError, match=sentence):
        Ranking.of(np.ones((2, 2)), np.ones((2, 2)), np.array(labels), np.array(labels), gain=gain)


@pytest.mark.parametrize("name", ["mapp", "cmc_0", "cmc", "map_at_r_3", "precision_at_x", ""])
def test_a_metric_that_does_not_exist_is_refused(name):
    with pytest.raises(InputError, match="There is no metric"):
        from_order("+-").per_query([name])
