from __future__ import annotations

import math

import brute_force
import pytest
import released
import torch

from marginlab.losses import SCT, Pairs
from marginlab.margins import Margin
from marginlab.values import InputError

NOTHING = Margin.of()


@pytest.mark.parametrize("mining", ["hardest", "all"])
@pytest.mark.parametrize("name", brute_force.LABELS)
def test_value_and_gradient_are_those_of_the_loops(name: str, mining: str) -> None:
    for seed, lam, temperature, spread in [(0, 1.0, 0.1, 0.6), (1, 0.3, 1.0, 1.5), (2, 2.0, 0.4, 0.2)]:
        x, y = brute_force.batch(name, seed, spread)
        want = brute_force.mean(brute_force.sct_terms(x, y, lam, temperature, mining))
        got = SCT(lam, temperature, mining)(Pairs.of(x, y), NOTHING)
        assert abs(got.total - want) < 1e-9
        grad = brute_force.gradient(got.total, x)
        torch.testing.assert_close(grad, brute_force.gradient(want, x), atol=1e-9, rtol=0)
        assert abs(lam * got.parts["contrast"] + got.parts["softmax"] - want) < 1e-9


def test_by_hand() -> None:
    # sim_ap 0.8; anchor 0: sim_an 0.6, easy: log(1 + e^-0.2); anchor 1: sim_an 0.96, hard: 0.5 * 0.96
    x, y = torch.tensor([[1, 0], [0.8, 0.6], [0.6, 0.8]], dtype=torch.float64), torch.tensor([0, 0, 1])
    for mining in ("hardest", "all"):
        terms = SCT(0.5, 1.0, mining)(Pairs.of(x, y), NOTHING)
        assert terms.total.item() == pytest.approx((0.5981388693815918 + 0.48) / 2, abs=1e-12)
        assert terms.parts["contrast"].item() == pytest.approx(0.48, abs=1e-12)
        assert terms.active == {"hard": 0.5}


def test_a_tie_is_not_hard() -> None:
    # a collapsed network: every similarity is 1, and the positives must still be pulled at
    pairs = Pairs.of(torch.ones(4, 6, dtype=torch.float64), torch.tensor([0, 0, 1, 1]))
    for mining in ("hardest", "all"):
        terms = SCT(mining=mining)(pairs, NOTHING)
        assert terms.active["hard"] == 0
        assert terms.total.item() == pytest.approx(math.log(2), abs=1e-12)


def test_more_rows_than_a_chunk_has() -> None:
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(600, 8, generator=generator, dtype=torch.float64).requires_grad_()
    y = torch.arange(600) // 3
    sim = brute_force.similarities(x)
    same = (y[:, None] == y) & ~torch.eye(600, dtype=torch.bool)
    ap = sim[same].view(600, 2, 1)  # a second formula: all triplets at once
    an = sim[y[:, None] != y].view(600, 1, 597)
    want = torch.where(an > ap, 0.7 * an, torch.nn.functional.softplus((an - ap) / 0.2)).mean()
    got = SCT(0.7, 0.2, "all")(Pairs.of(x, y, max_positives=2), NOTHING).total
    assert abs(got - want) < 1e-9
    torch.testing.assert_close(brute_force.gradient(got, x), brute_force.gradient(want, x), atol=1e-9, rtol=0)


def test_the_released_code_pulls_at_hard_triplets_and_pushes_easy_ones() -> None:
    # sim_ap 0.2; anchor 0: sim_an 0.9, hard; anchor 1: sim_an -0.25, easy
    x = torch.tensor([[1, 0], [0.2, 0.96**0.5], [0.9, -(0.19**0.5)]], dtype=torch.float64)
    y = torch.tensor([0, 0, 1])
    sim = x @ x.T
    softplus = torch.nn.functional.softplus
    ours = SCT(temperature=1.0, mining="all")(Pairs.of(x, y), NOTHING).total
    assert abs(ours - (sim[0, 2] + softplus(sim[1, 2] - sim[1, 0])) / 2) < 1e-9
    theirs = released.sct(x, y, margin=0.25)
    assert abs(theirs - (softplus(sim[0, 2] - sim[0, 1] + 0.25) + sim[1, 2])) < 1e-9


def test_the_released_code_is_nan_without_a_hard_triplet() -> None:
    x, y = torch.tensor([[1, 0], [1, 0.1], [-1, 0.1]], dtype=torch.float64), torch.tensor([0, 0, 1])
    assert released.sct(x, y, margin=0.25).isnan()
    assert SCT()(Pairs.of(x, y), NOTHING).total.isfinite()


def test_the_papers_own_code_calls_a_near_negative_hard_and_ours_does_not() -> None:
    # sim_ap 0.99, sim_an 0.9 > 0.8: github.com/littleredxh/HardNegative would push; the formula is sim_an > sim_ap
    sim = torch.tensor([[1, 0.99, 0.9], [0.99, 1, 0.85], [0.9, 0.85, 1]], dtype=torch.float64, requires_grad=True)
    pairs = Pairs.of(torch.eye(3, dtype=torch.float64), torch.tensor([0, 0, 1]))
    object.__setattr__(pairs, "sim", sim)
    terms = SCT()(pairs, NOTHING)
    assert terms.active["hard"] == 0
    (grad,) = torch.autograd.grad(terms.total, sim)
    assert grad[0, 1] < 0 < grad[0, 2]


def test_of_a_hard_triplet_the_negative_alone_moves() -> None:
    sim = torch.tensor([[1.0, 0.5, 0.8], [0.5, 1.0, 0.7], [0.8, 0.7, 1.0]], dtype=torch.float64, requires_grad=True)
    pairs = Pairs.of(torch.eye(3, dtype=torch.float64), torch.tensor([0, 0, 1]))
    object.__setattr__(pairs, "sim", sim)
    for mining in ("hardest", "all"):
        (grad,) = torch.autograd.grad(SCT(0.6, mining=mining)(pairs, NOTHING).total, sim)
        assert grad.tolist() == [[0, 0, 0.3], [0, 0, 0.3], [0, 0, 0]]


def test_options_out_of_range_are_refused() -> None:
    with pytest.raises(InputError, match=r"SCT.lam must be 0 or more, not -1.0"):
        SCT(lam=-1)
    with pytest.raises(InputError, match=r"SCT.temperature must be 0.001 or more, not 0.0"):
        SCT(temperature=0)
    with pytest.raises(InputError, match=r"SCT.mining cannot be 'semihard'; choose one of hardest: one triplet"):
        SCT(mining="semihard")
