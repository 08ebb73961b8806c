from __future__ import annotations

import numpy as np
import pytest
import torch

from marginlab.retrieval import Ranking, concatenate, unit
from marginlab.values import InputError
from tests.retrieval.oracle import tie_free


def test_cosine_of_the_concatenation_is_the_mean_of_the_models_cosines():
    rng = np.random.default_rng(0)
    models = [torch.from_numpy(rng.normal(size=(9, d)) * 3) for d in (4, 8, 8)]
    joint = concatenate(models)
    mean = torch.stack([unit(m) @ unit(m).T for m in models]).mean(0)
    torch.testing.assert_close(unit(joint) @ unit(joint).T, mean, atol=1e-6, rtol=0)
    torch.testing.assert_close(joint.norm(dim=1), torch.ones(9))


def test_concatenation_ranks_by_the_mean_distance_of_the_models():
    """The published protocol averages the models' matrices of squared Euclidean distances."""
    x, label, rng = tie_free(60, 8)
    models = [unit(x @ torch.from_numpy(rng.normal(size=(16, d)).astype(np.float32))).double() for d in (3, 5, 5)]
    distance = torch.stack([torch.cdist(m, m) ** 2 for m in models]).mean(0)
    ranking = Ranking.of(concatenate(models), concatenate(models), label, label)
    for q in range(60):
        order = np.argsort(distance[q].numpy(), kind="stable")
        mine = ranking.ranks[ranking.offsets[q] : ranking.offsets[q + 1]]
        assert np.array_equal(np.flatnonzero(label[order] == label[q]) + 1, mine)


def test_concatenation_survives_rotated_spaces_where_the_mean_does_not():
    x, label, rng = tie_free(200, 40, d=8, spread=2.0)
    x, image = unit(x), np.arange(200)
    turned = [x @ torch.from_numpy(np.linalg.qr(rng.normal(size=(8, 8)))[0].astype(np.float32)) for _ in range(5)]

    def quality(e):
        return Ranking.of(e, e, label, label, image, image).map()

    assert quality(concatenate(turned)) == pytest.approx(quality(x), abs=1e-3)
    assert quality(torch.stack(turned).mean(0)) < quality(x) - 0.1


def test_models_must_have_seen_the_same_images():
    with pytest.raises(InputError, match="same images"):
        concatenate([torch.ones(2, 2), torch.ones(3, 2)])
    with pytest.raises(InputError, match="at least one"):
        concatenate([])
