from __future__ import annotations

import numpy as np
import pytest
import torch

from marginlab.data.subset import Subset
from marginlab.retrieval import Ranking, protocol, protocol_scores, validation_scores
from marginlab.values import InputError
from tests.retrieval.oracle import tie_free


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
    monkeypatch.setattr(protocol, "_POSITIVES_AT_ONCE", 50)
    again = protocol_scores(x.numpy(), subset) | validation_scores(x.numpy(), subset)
    assert again == pytest.approx(whole, abs=1e-12)


def test_embeddings_of_other_images_are_refused():
    with pytest.raises(InputError, match="2 embeddings for 6 images"):
        protocol_scores(torch.ones(2, 2), toy_subset())
