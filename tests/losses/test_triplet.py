from __future__ import annotations

import brute_force
import pytest
import torch
from pytorch_metric_learning.distances import CosineSimilarity
from pytorch_metric_learning.losses import TripletMarginLoss
from pytorch_metric_learning.miners import TripletMarginMiner
from pytorch_metric_learning.reducers import AvgNonZeroReducer, ThresholdReducer

from marginlab.losses import Pairs, Triplet
from marginlab.margins import Margin
from marginlab.values import InputError

MINING = ("semihard", "all", "hard", "easy")


@pytest.mark.parametrize("mining", MINING)
@pytest.mark.parametrize("name", brute_force.LABELS)
def test_value_and_gradient_are_those_of_the_loops(name: str, mining: str) -> None:
    for seed, epsilon, spread in [(0, 0.25, 0.6), (1, 0.6, 0.3), (2, 0.0, 1.0), (3, 2.0, 1.0), (4, 0.05, 0.05)]:
        x, y = brute_force.batch(name, seed, spread)
        terms = brute_force.triplet_terms(x, y, epsilon, mining)
        want = brute_force.mean(terms)
        got = Triplet(mining)(Pairs.of(x, y), Margin.of(epsilon))
        assert abs(got.total - want) < 1e-9
        grad = brute_force.gradient(got.total, x)
        torch.testing.assert_close(grad, brute_force.gradient(want, x), atol=1e-9, rtol=0)
        assert got.parts["triplet"] == got.total
        every = len(brute_force.triplets(y))
        assert got.active["triplet"] == (len(terms) / every if every else 0)


def test_by_hand() -> None:
    # sim_ap 0.8; anchor 0: sim_an 0.6, gap 0.2, loss 0.05 (semihard); anchor 1: sim_an 0.96, gap -0.16, loss 0.41 (hard)
    x, y = torch.tensor([[1, 0], [0.8, 0.6], [0.6, 0.8]], dtype=torch.float64), torch.tensor([0, 0, 1])
    for mining, loss in {"semihard": 0.05, "hard": 0.41, "all": 0.23, "easy": 0.0}.items():
        assert Triplet(mining)(Pairs.of(x, y), Margin.of(0.25)).total.item() == pytest.approx(loss, abs=1e-12)


@pytest.mark.parametrize("mining", ["semihard", "all", "hard", "easy"])
@pytest.mark.parametrize("reducer", [ThresholdReducer(low=0), AvgNonZeroReducer()])
def test_value_and_gradient_are_those_of_pytorch_metric_learning(mining: str, reducer: torch.nn.Module) -> None:
    generator = torch.Generator().manual_seed(5)
    y = torch.arange(520) // 4  # more rows than one chunk has
    y[:7] = torch.arange(1000, 1007)  # some are alone, some have two positives
    x = torch.randn(260, 8, generator=generator, dtype=torch.float64).repeat_interleave(2, 0)
    x = (x + 0.7 * torch.randn(520, 8, generator=generator, dtype=torch.float64)).requires_grad_()
    miner = TripletMarginMiner(0.3, type_of_triplets=mining, distance=CosineSimilarity())
    mined = miner(x, y)
    if mining != "easy":
        assert len(mined[0]) > 1000
    want = TripletMarginLoss(0.3, distance=CosineSimilarity(), reducer=reducer)(x, y, mined)
    got = Triplet(mining)(Pairs.of(x, y, max_positives=3), Margin.of(0.3)).total
    assert abs(got - want) < 1e-9
    torch.testing.assert_close(brute_force.gradient(got, x), brute_force.gradient(want, x), atol=1e-9, rtol=0)


@pytest.mark.parametrize("name", ["one class, no negative", "no positive", "one image"])
def test_an_empty_set_is_exactly_zero_with_a_zero_gradient(name: str) -> None:
    x, y = brute_force.batch(name)
    terms = Triplet("all")(Pairs.of(x, y), Margin.of(2.0))
    terms.total.backward()
    assert terms.total == 0
    assert terms.active["triplet"] == 0
    assert x.grad is not None
    assert torch.equal(x.grad, torch.zeros_like(x))


def test_a_similarity_that_is_not_a_number_is_not_hidden() -> None:
    x, y = brute_force.batch("P x K")
    with torch.no_grad():
        x[2] = float("nan")
    assert Triplet()(Pairs.of(x, y), Margin.of(0.25)).total.isnan()


def test_an_unknown_mining_is_refused_with_the_list() -> None:
    with pytest.raises(InputError, match=r"Triplet.mining cannot be 'hardest'; choose one of semihard: 0 < gap"):
        Triplet("hardest")
