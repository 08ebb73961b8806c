"""Stateless losses of the library against the library itself, called without the adapter on raw embeddings."""

from __future__ import annotations

import dataclasses
import math
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import brute_force
import pytest
import torch
from pytorch_metric_learning import losses as library
from pytorch_metric_learning.miners import MultiSimilarityMiner
from torch import Tensor

import marginlab.losses
from marginlab.losses import (
    PNP,
    Circle,
    Contrastive,
    CrossBatchMemory,
    FastAP,
    GeneralizedLiftedStructure,
    LiftedStructure,
    LossTerms,
    MultiSimilarity,
    NPairs,
    NTXent,
    Pairs,
    SmoothAP,
    SupCon,
    ThresholdConsistent,
    TupletMargin,
    build_seeded,
)
from marginlab.losses.library import LibraryLoss
from marginlab.margins import Margin, NoMargin, fits
from marginlab.values import InputError, at_path, from_json, to_json, with_path

NONE = Margin.of()
Direct = Callable[[Tensor, Tensor], Tensor]


def multi_similarity(x: Tensor, y: Tensor) -> Tensor:
    loss: Tensor = library.MultiSimilarityLoss(alpha=3, beta=40, base=0.4)(
        x, y, MultiSimilarityMiner(epsilon=0.2)(x, y)
    )
    return loss


def tuplet(x: Tensor, y: Tensor) -> Tensor:
    main, variance = library.TupletMarginLoss(margin=8, scale=32), library.IntraPairVarianceLoss(0.02, 0.03)
    loss: Tensor = main(x, y) + 0.7 * variance(x, y)
    return loss


CASES: list[tuple[Any, Direct]] = [
    (Contrastive(), library.ContrastiveLoss()),
    (Contrastive(0.3, 1.2), library.ContrastiveLoss(pos_margin=0.3, neg_margin=1.2)),
    (LiftedStructure(1.3, 0.1), library.LiftedStructureLoss(neg_margin=1.3, pos_margin=0.1)),
    (GeneralizedLiftedStructure(0.8, 0.1), library.GeneralizedLiftedStructureLoss(neg_margin=0.8, pos_margin=0.1)),
    (TupletMargin(margin=8, scale=32, variance=0.7, pos_eps=0.02, neg_eps=0.03), tuplet),
    (MultiSimilarity(alpha=3, beta=40, base=0.4, epsilon=0.2), multi_similarity),
    (MultiSimilarity(epsilon=None), library.MultiSimilarityLoss()),
    (Circle(0.25, 32), library.CircleLoss(m=0.25, gamma=32)),
    (SupCon(0.2), library.SupConLoss(temperature=0.2)),
    (NTXent(0.2), library.NTXentLoss(temperature=0.2)),
    (NPairs(), library.NPairsLoss()),
    (FastAP(7), library.FastAPLoss(num_bins=7)),
    *(
        (PNP(v, 4.0, 2.0, 0.05), library.PNPLoss(b=2, alpha=4, anneal=0.05, variant=v))
        for v in library.PNPLoss.VARIANTS
    ),
    (ThresholdConsistent(0.8, 0.3, 0.6, 1.4), library.ThresholdConsistentMarginLoss(0.6, 1.4, 0.8, 0.3)),
]
EVERY = [v for v in vars(marginlab.losses).values() if isinstance(v, type) and issubclass(v, LibraryLoss)]


def called(loss: Any, x: Tensor, y: Tensor) -> LossTerms:
    terms: LossTerms = build_seeded(loss, int(y.max()) + 1, x.detach(), 0)(Pairs.of(x, y), NONE)
    return terms


@pytest.mark.parametrize("name", brute_force.LABELS)
@pytest.mark.parametrize(("loss", "direct"), CASES, ids=lambda c: str(c) if dataclasses.is_dataclass(c) else "")
def test_value_and_gradient_are_those_of_the_library(loss: Any, direct: Direct, name: str) -> None:
    for seed in range(3):
        x, y = brute_force.batch(name, seed)
        got, want = called(loss, x, y), direct(x, y)
        assert got.total.dtype == torch.float64
        assert abs(got.total - want) < 1e-10
        grad = brute_force.gradient(got.total, x)
        torch.testing.assert_close(grad, brute_force.gradient(want, x), atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize(("loss", "direct"), CASES, ids=lambda c: str(c) if dataclasses.is_dataclass(c) else "")
def test_the_adapter_adds_not_one_bit_in_float32(loss: Any, direct: Direct) -> None:
    x, y = brute_force.batch("P x K", seed=2)
    pairs = Pairs.of(x.detach().float(), y)
    assert torch.equal(loss(pairs, NONE).total, direct(pairs.embeddings, y).double())


def smooth_ap(x: Tensor, y: Tensor, temperature: float) -> Tensor:
    """As published and as its authors compute it: the query is one of its own positives."""
    sim, n, losses = brute_force.similarities(x), range(len(y)), []
    for q in n:
        precision = []
        for i in (i for i in n if y[i] == y[q]):
            ahead = {j: torch.sigmoid((sim[q, j] - sim[q, i]) / temperature) for j in n if j != i}
            of_mine = [g for j, g in ahead.items() if y[j] == y[q]]
            precision.append((1 + sum(of_mine)) / (1 + sum(ahead.values())))
        losses.append(1 - torch.stack(precision).mean())
    return torch.stack(losses).mean()


@pytest.mark.parametrize("labels", [[0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3], [2, 0, 1, 0, 2, 1], [1, 0, 0, 1, 1, 0, 0, 1]])
def test_smooth_ap_is_that_of_the_loops(labels: list[int]) -> None:
    y = torch.tensor(labels)
    x = torch.randn(len(y), 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64).requires_grad_()
    got, want = called(SmoothAP(0.1), x, y).total, smooth_ap(x, y, 0.1)
    assert abs(got - want) < 1e-6  # the library adds up in float32
    torch.testing.assert_close(brute_force.gradient(got, x), brute_force.gradient(want, x), atol=1e-6, rtol=1e-5)


def test_smooth_ap_of_the_library_alone_needs_as_many_identities_as_images_of_one() -> None:
    """The deviation is meant: with 4 identities of 3 images the library takes every 4 rows for one identity."""
    x, y = brute_force.batch("P x K")
    assert abs(library.SmoothAPLoss(0.1)(x, y) - smooth_ap(x, y, 0.1)) > 0.01
    square = torch.arange(9) // 3
    assert torch.equal(called(SmoothAP(), x[:9], square).total, library.SmoothAPLoss()(x[:9], square).double())


def test_smooth_ap_refuses_identities_of_different_size() -> None:
    x, y = brute_force.batch("unequal classes")
    with pytest.raises(
        InputError, match="SmoothAP needs equally many images of every identity, but a batch has 1 of one and 5"
    ):
        called(SmoothAP(), x, y)


def test_by_hand() -> None:
    # Unit vectors at 0, 60 and 120 degrees; 0 and 1 are of one identity. d: 1 (positive), 1 and sqrt(3) (negative).
    x = torch.tensor([[1, 0], [0.5, math.sqrt(0.75)], [-0.5, math.sqrt(0.75)]], dtype=torch.float64)
    terms = Contrastive(neg_margin=1.5)(Pairs.of(x, torch.tensor([0, 0, 1])), NONE)
    assert terms.total.item() == pytest.approx(1 + 0.5, abs=1e-12)  # the negative at sqrt(3) is not averaged over
    assert {k: v.item() for k, v in terms.parts.items()} == pytest.approx({"pos": 1, "neg": 0.5})
    assert {k: v.item() for k, v in terms.active.items()} == pytest.approx({"pos": 1, "neg": 0.5})
    # Similarities 0.5, 0.5, -0.5. log of e^2.5 + e^-2.5 over e^2.5 for anchor 0, log 2 for anchor 1; 2 has no positive.
    terms = SupCon(temperature=0.2)(Pairs.of(x, torch.tensor([0, 0, 1])), NONE)
    assert terms.total.item() == pytest.approx((math.log(1 + math.exp(-5)) + math.log(2)) / 2, abs=1e-12)
    assert terms.active["anchor"].item() == pytest.approx(2 / 3)


def test_terms_are_reported_alike_on_a_batch_without_any() -> None:
    for loss in (Contrastive(), Circle(), TupletMargin()):
        some, none = (called(loss, *brute_force.batch(name)) for name in ("P x K", "one image"))
        assert some.active.keys() == none.active.keys() and not any(none.active.values())
    assert {"tuplet", "variance_pos", "variance_neg"} == called(
        TupletMargin(), *brute_force.batch("P x K")
    ).parts.keys()


@pytest.mark.parametrize("kind", EVERY)
def test_a_nan_is_not_hidden_and_half_precision_is_read_in_full(kind: type) -> None:
    x, y = brute_force.batch("P x K")
    broken = x.detach().float()
    broken[5, 2] = float("nan")
    assert called(kind(), broken, y).total.isnan()
    half = x.detach().bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = build_seeded(kind(), 4, half.float(), 0)(Pairs.of(half, y), NONE).total
    assert torch.equal(got, called(kind(), half.float(), y).total)


@pytest.mark.parametrize("kind", EVERY)
def test_each_is_a_value_like_any_other(kind: Any) -> None:
    loss = kind()
    assert from_json(to_json(loss)) == loss
    fits(loss, NoMargin())  # they read no slot
    for field in dataclasses.fields(loss):
        v = getattr(loss, field.name)
        if isinstance(v, float):
            assert at_path(with_path(loss, field.name, v + 0.5), field.name) == v + 0.5
    for name in kind.above_zero:
        with pytest.raises(InputError, match=rf"{kind.__name__}\.{name} must be above 0, not 0"):
            with_path(loss, name, 0)


def test_a_search_reaches_the_loss_inside_a_memory() -> None:
    loss = with_path(CrossBatchMemory(MultiSimilarity()), "loss.beta", 40)
    assert loss == CrossBatchMemory(MultiSimilarity(beta=40)) == from_json(to_json(loss))


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(InputError, match=r"PNP.variant cannot be 'P'; choose one of O, Ds, Dq, Iu, Ib."):
        PNP("P")
    with pytest.raises(InputError, match="MultiSimilarity has no field 'gamma'"):
        MultiSimilarity(gamma=2)  # type: ignore[call-arg]


def test_the_library_is_not_loaded_before_one_of_its_losses_is_called() -> None:
    code = (
        "import sys, torch; from marginlab.losses import *; from marginlab.margins import Margin;"
        "pairs = Pairs.of(torch.eye(4), torch.tensor([0, 0, 1, 1])); loss = MultiSimilarity(); ProxyAnchor();"
        "AdaTriplet()(pairs, Margin.of(0.2, 0.1)); print('pytorch_metric_learning' in sys.modules);"
        "loss(pairs, None); print('pytorch_metric_learning' in sys.modules)"
    )
    env = {"PYTHONPATH": "platform", "OMP_NUM_THREADS": "1"}
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
    assert out.stdout.split() == ["False", "True"], out.stderr
