from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import average_precision_score

from marginlab.scores import GROUPS, WORST, ensemble_scores, group_scores, long_scores, split_metric, worst_queries
from marginlab.values import InputError
from tests.retrieval.oracle import from_order


def subjects(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """10 subjects with two gallery images (both knees) each, and later images at 12 and 24 months."""
    label = np.repeat(np.arange(10), 6)
    months = np.tile([0.0, 0.0, 12.0, 12.0, 24.0, 24.0], 10)
    order = rng.permutation(60)
    return label[order], months[order]


def frame(rows, label, months, embeddings) -> pl.DataFrame:
    array = pl.Series(embeddings.astype(np.float32), dtype=pl.Array(pl.Float32, embeddings.shape[1]))
    return pl.DataFrame({"row": rows, "label": label, "months": months.astype(np.float32), "embedding": array})


def brute_force_map(folds, label, months, horizon=None) -> float:
    """Mean over queries of sklearn's average precision on the mean over models of the squared Euclidean distance."""
    unit = [e / np.linalg.norm(e, axis=1, keepdims=True) for e in folds]
    distance = np.mean([((e[:, None] - e[None]) ** 2).sum(-1) for e in unit], axis=0)
    gallery = np.flatnonzero(months == 0)
    queries = np.flatnonzero(months > 0 if horizon is None else months == horizon)
    return float(np.mean([average_precision_score(label[gallery] == label[q], -distance[q, gallery]) for q in queries]))


def test_an_ensemble_ranks_by_the_mean_distance_of_its_models():
    rng = np.random.default_rng(0)
    label, months = subjects(rng)
    rows = np.arange(100, 160)
    folds = [rng.normal(size=(60, d)) + rng.normal(size=(10, d))[label] for d in (8, 8, 5)]
    frames = [frame(rows, label, months, e) for e in folds]
    frames[1] = frames[1].sample(fraction=1.0, shuffle=True, seed=1)  # another order is the same
    scores = ensemble_scores(frames)
    found = {(r["metric"], r["horizon"]): r["value"] for r in long_scores({f"test/{k}": v for k, v in scores.items()})}
    for horizon in (None, 12, 24):
        assert found["test/map", horizon] == pytest.approx(brute_force_map(folds, label, months, horizon), abs=1e-6)
    alone = brute_force_map(folds[:1], label, months)
    assert abs(alone - found["test/map", None]) > 0.01  # it is not the first model's figure


def test_an_ensemble_of_one_model_is_that_model():
    rng = np.random.default_rng(1)
    label, months = subjects(rng)
    one = frame(np.arange(60), label, months, rng.normal(size=(60, 4)))
    assert ensemble_scores([one, one]) == pytest.approx(ensemble_scores([one]))


def test_models_of_different_images_are_refused():
    rng = np.random.default_rng(2)
    label, months = subjects(rng)
    one = frame(np.arange(60), label, months, rng.normal(size=(60, 4)))
    with pytest.raises(InputError, match="different images"):
        ensemble_scores([one, one.with_columns(pl.col("row") + 1)])


def test_images_of_unknown_month_are_neither_gallery_nor_query():
    rng = np.random.default_rng(3)
    label, months = subjects(rng)
    embeddings = rng.normal(size=(60, 4))
    unknown = np.arange(60) % 7 == 0
    scores = ensemble_scores([frame(np.arange(60), label, np.where(unknown, np.nan, months), embeddings)] * 2)
    found = {(r["metric"], r["horizon"]): r["value"] for r in long_scores({f"test/{k}": v for k, v in scores.items()})}
    kept = ~unknown
    expected = brute_force_map([embeddings[kept]], label[kept], months[kept])
    assert found["test/map", None] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("test/map", ("test/map", None)),
        ("test/map_12m", ("test/map", 12)),
        ("test/cmc_1", ("test/cmc_1", None)),
        ("test/cmc_allshots_1_144m", ("test/cmc_allshots_1", 144)),
    ],
)
def test_a_name_says_its_horizon(name, expected):
    assert split_metric(name) == expected


def test_images_that_the_protocol_leaves_out_are_no_queries():
    """ChestX-ray14's visits of thirteen years and later: an ensemble leaves them out as a single run does."""
    rng = np.random.default_rng(3)
    label, months = subjects(rng)
    every = frame(np.arange(60), label, months, rng.normal(size=(60, 4)))
    role = np.where(months == 24, "other", np.where(months == 12, "query", "gallery"))
    kept = every.with_columns(role=pl.Series(role))
    assert ensemble_scores([kept]) == ensemble_scores([every.filter(pl.Series(months < 24))])
    assert ensemble_scores([kept]) != ensemble_scores([every])


def test_figures_become_rows():
    assert list(long_scores({"test/map": 0.1, "test/map_12m": 0.3})) == [
        {"metric": "test/map", "horizon": None, "value": 0.1},
        {"metric": "test/map", "horizon": 12, "value": 0.3},
    ]


def test_figures_of_groups_count_what_has_no_match():
    ranking = from_order("+-+-", "--", "-+", "++")
    queries = pl.DataFrame({"view": ["AP", "PA", "PA", None], "months": [11.9, 24.0, 12.2, None]})
    found = group_scores(ranking, queries, ["map", "cmc_1"])
    assert dict(found.schema) == GROUPS
    assert found.filter(pl.col("metric") == "map").select("by", "group", "queries", "unmatched", "value").rows() == [
        (None, None, 4, 1, pytest.approx((5 / 6 + 1 / 2 + 1) / 3)),
        ("view", "AP", 1, 0, pytest.approx(5 / 6)),
        ("view", "PA", 2, 1, pytest.approx(1 / 2)),
        ("view", None, 1, 0, 1.0),
        ("months", "12", 2, 0, pytest.approx((5 / 6 + 1 / 2) / 2)),
        ("months", "24", 1, 1, None),
        ("months", None, 1, 0, 1.0),
    ]


def test_the_worst_queries_are_packed_rows():
    ranking = from_order("+-+-", "--", "-+", "++")
    found = worst_queries(ranking, np.array([10, 11, 12, 13]), np.array([50, 51, 52, 53]), n=3)
    assert dict(found.schema) == WORST
    assert found.rows() == [
        (12, 0.5, 50, 1, 51, 2),
        (10, pytest.approx(5 / 6), 51, 2, 50, 1),
        (13, 1.0, None, None, 50, 1),
    ]
