from __future__ import annotations

import numpy as np
import pytest
import torch

from marginlab.retrieval import Figures, Ranking, Worst
from marginlab.values import InputError
from tests.retrieval.oracle import from_order, same, tie_free


def test_queries_without_a_match_count_and_stay_out_of_means():
    r = from_order("+-", "--", "-+")
    assert (len(r), r.unmatched, r.map(), r.cmc(1)) == (3, 1, 0.75, 0.5)
    assert np.isnan(r.ap()).tolist() == [False, True, False]
    assert np.isnan(from_order("--").map())
    assert r.hits(1).tolist()[::2] == [1, 0]


def test_no_query_with_a_match_has_no_figures():
    figures = from_order("--", "-").figures(["map", "cmc_1", "ndcg", "precision_at_5"])
    assert (figures.queries, figures.unmatched) == (2, 2)
    assert all(np.isnan(v) for v in figures.means.values())
    assert from_order().figures().queries == 0


def test_figures_of_groups_are_those_of_the_selected_queries():
    r = from_order("+-+-", "--", "-+", "++", "-+")
    group = np.array([12.0, 12.0, 24.0, np.nan, 12.0])
    names = ["map", "cmc_1"]
    by = r.by(group, names)
    assert [(f.group, f.queries, f.unmatched) for f in by] == [(12.0, 3, 1), (24.0, 1, 0), (None, 1, 0)]
    for f, mask in zip(by, (group == 12, group == 24, np.isnan(group)), strict=True):
        assert f.means == r.select(mask).figures(names).means
    views = r.by(["PA", None, "AP", "PA", "AP"], names)
    assert [(f.group, f.queries, f.unmatched) for f in views] == [("AP", 2, 0), ("PA", 2, 0), (None, 1, 1)]
    assert r.figures(names) == Figures(None, 5, 1, {"map": r.map(), "cmc_1": r.cmc(1)})
    with pytest.raises(InputError, match="one value per query: 5 of them, not 2"):
        r.by(["a", "b"])


def test_the_worst_queries_say_what_they_found():
    r = from_order("+-+-", "--", "-+", "++", "--+")
    assert r.worst(9) == [
        Worst(4, 1 / 3, wrong=0, wrong_rank=1, right=2, right_rank=3),
        Worst(2, 1 / 2, wrong=0, wrong_rank=1, right=1, right_rank=2),
        Worst(0, pytest.approx(5 / 6), wrong=1, wrong_rank=2, right=0, right_rank=1),
        Worst(3, 1.0, wrong=None, wrong_rank=None, right=0, right_rank=1),
    ]
    assert [w.query for w in r.worst(2, "cmc_1")] == [2, 4]  # equal figures in query order
    assert from_order("--").worst() == []


def test_the_worst_queries_name_gallery_rows():
    x, label, _ = tie_free(80, 10)
    image = np.arange(80)
    ranking = Ranking.of(x, x, label, label, image, image)
    for w in ranking.worst(80):
        assert label[w.right] == label[w.query] != label[w.wrong]
        assert min(w.right_rank, w.wrong_rank) == 1 and w.right != w.query


def test_select_keeps_queries_and_refuses_anything_but_a_mask():
    r = from_order("+-+-", "--", "-+", "++")
    part = r.select(np.array([True, True, False, True]))
    assert same(part, from_order("+-+-", "--", "++"))
    assert same(r.select(np.zeros(4, bool)), from_order())
    with pytest.raises(InputError, match="one bool per query"):
        r.select(np.array([0, 1]))


def test_rankings_of_one_gallery_are_joined_query_after_query():
    x, label, _ = tie_free(50, 5)
    for gain in (None, np.eye(5)):
        whole = Ranking.of(x, x, label, label, gain=gain)
        parts = [Ranking.of(x[s], x, label[s], label, gain=gain) for s in (slice(0, 13), slice(13, 50))]
        assert same(Ranking.join(parts), whole)
    with pytest.raises(InputError, match="same gains"):
        Ranking.join([whole, Ranking.of(x, x, label, label)])
    with pytest.raises(InputError, match="at least one"):
        Ranking.join([])


def test_a_ranking_cannot_be_changed():
    r = from_order("+-")
    with pytest.raises(ValueError, match="read-only"):
        r.ranks[0] = 5
    with pytest.raises(AttributeError):
        r.ranks = np.array([5])


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"query": torch.ones(2, 3)}, "of one network"),
        ({"query": torch.ones(2)}, "must be \\[rows, D\\]"),
        ({"query_label": np.zeros(3, int)}, "query_label has 3 entries for 2 embeddings"),
        ({"gallery_visit": np.zeros(4, int)}, "visits of both"),
        ({"query": torch.full((2, 2), torch.nan)}, "query embeddings hold NaN or infinity"),
        ({"gallery": torch.full((4, 2), torch.inf)}, "gallery embeddings hold NaN or infinity"),
        ({"query": torch.full((2, 2), 70000.0).half()}, "NaN or infinity"),  # beyond half precision
        ({"query": torch.full((2, 2), 1e30)}, "too long for float32"),
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


def test_nothing_to_ask_and_nothing_to_find():
    x = torch.ones(3, 2)
    none = Ranking.of(x[:0], x, np.zeros(0), np.zeros(3))
    assert (len(none), none.unmatched, none.figures().queries) == (0, 0, 0)
    empty = Ranking.of(x, x[:0], np.zeros(3), np.zeros(0), gain=None)
    assert (empty.unmatched, empty.admissible.tolist(), empty.wrong.tolist()) == (3, [0, 0, 0], [-1, -1, -1])
    graded = Ranking.of(x, x[:0], np.zeros(3, int), np.zeros(0, int), gain=np.eye(1))
    assert np.isnan(graded.ndcg())
