"""Losses with proxies against the library itself, on the same proxies: value, gradient, and what a run starts from."""

from __future__ import annotations

import dataclasses
from typing import Any

import brute_force
import pytest
import torch
from pytorch_metric_learning import losses as library
from pytorch_metric_learning.regularizers import SparseCentersRegularizer
from torch import nn

from marginlab.losses import (
    ArcFace,
    CosFace,
    NormalizedSoftmax,
    Pairs,
    ProxyAnchor,
    ProxyNCA,
    SoftTriple,
    SubCenterArcFace,
    build_seeded,
)
from marginlab.margins import Margin
from marginlab.values import InputError

SIZES = {"num_classes": 9, "embedding_size": 5}
SPARSE = {"weight_regularizer": SparseCentersRegularizer(9, 4), "weight_reg_weight": 0.3}
CASES: list[tuple[Any, nn.Module]] = [
    (ArcFace(20, 16), library.ArcFaceLoss(**SIZES, margin=20, scale=16)),
    (SubCenterArcFace(20, 16, 2), library.SubCenterArcFaceLoss(**SIZES, margin=20, scale=16, sub_centers=2)),
    (CosFace(0.2, 16), library.CosFaceLoss(**SIZES, margin=0.2, scale=16)),
    (NormalizedSoftmax(0.1), library.NormalizedSoftmaxLoss(**SIZES, temperature=0.1)),
    (ProxyNCA(3), library.ProxyNCALoss(**SIZES, softmax_scale=3)),
    (ProxyAnchor(0.2, 16), library.ProxyAnchorLoss(**SIZES, margin=0.2, alpha=16)),
    (
        SoftTriple(4, 10, 0.2, 0.05, 0),
        library.SoftTripleLoss(**SIZES, centers_per_class=4, la=10, gamma=0.2, margin=0.05),
    ),
    (
        SoftTriple(4, 10, 0.2, 0.05, 0.3),
        library.SoftTripleLoss(**SIZES, centers_per_class=4, la=10, gamma=0.2, margin=0.05, **SPARSE),
    ),
]
PROXIES = [type(loss) for loss, _ in CASES[:-1]]


@pytest.mark.parametrize("name", brute_force.LABELS)
@pytest.mark.parametrize(("loss", "direct"), CASES, ids=lambda c: str(c) if dataclasses.is_dataclass(c) else "")
def test_value_and_gradients_are_those_of_the_library(loss: Any, direct: nn.Module, name: str) -> None:
    for seed in range(3):
        x, y = brute_force.batch(name, seed)
        built = build_seeded(loss, 9, x.detach(), seed)
        (proxies,), (theirs,) = built.parameters(), direct.parameters()
        theirs.data = proxies.detach().clone()
        got, want = built(Pairs.of(x, y), Margin.of()).total, direct(x, y)
        assert abs(got - want) < 1e-9 * max(1, want)
        mine, reference = (torch.autograd.grad(v, [x, p]) for v, p in ((got, proxies), (want, theirs)))
        for a, b in zip(mine, reference, strict=True):
            torch.testing.assert_close(a, b, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("kind", PROXIES)
def test_proxies_start_from_the_seed_alone(kind: type) -> None:
    starts = []
    for global_seed, seed in ((1, 5), (2, 5), (1, 6)):
        torch.manual_seed(global_seed)
        before = torch.get_rng_state()
        (proxies,) = build_seeded(kind(), 9, torch.zeros(1, 5), seed).parameters()
        assert torch.equal(torch.get_rng_state(), before)
        assert proxies.dtype == torch.float32 and proxies.isfinite().all() and proxies.numel() % (9 * 5) == 0
        starts.append(proxies)
    assert torch.equal(starts[0], starts[1]) and not torch.equal(starts[0], starts[2])


def test_arcface_by_hand() -> None:
    # One image on its own proxy, the other proxy at a right angle: -log(e^(s cos m) / (e^(s cos m) + e^0)), m = 60 degrees.
    built = build_seeded(ArcFace(margin=60, scale=2), 2, torch.zeros(1, 2, dtype=torch.float64), 0)
    (proxies,) = built.parameters()
    proxies.data = torch.eye(2, dtype=torch.float64)
    x = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    total = built(Pairs.of(x, torch.tensor([0])), Margin.of()).total
    e = torch.tensor(2 * 0.5, dtype=torch.float64).exp()
    assert abs(total + (e / (e + 1)).log()) < 1e-9


def test_published_defaults() -> None:
    assert ProxyAnchor() == ProxyAnchor(margin=0.1, alpha=32, lr_factor=100)
    assert SoftTriple() == SoftTriple(centers=10, la=20, gamma=0.1, margin=0.01, tau=0.2, lr_factor=100)
    assert ArcFace() == ArcFace(margin=28.6, scale=64)


def test_a_weight_that_would_scatter_the_centres_is_refused() -> None:
    with pytest.raises(InputError, match=r"SoftTriple.tau must be 0 or more, not -1.0"):
        SoftTriple(tau=-1)
