from __future__ import annotations

import brute_force
import pytest
import torch
from pytorch_metric_learning.distances import CosineSimilarity
from pytorch_metric_learning.losses import TripletMarginLoss
from pytorch_metric_learning.miners import TripletMarginMiner
from pytorch_metric_learning.utils.loss_and_miner_utils import get_all_triplets_indices

from marginlab.losses import AdaTriplet, Pairs, Triplet
from marginlab.margins import Margin
from marginlab.values import InputError


@pytest.mark.parametrize("mining", ["semihard", "all", "hard", "easy"])
@pytest.mark.parametrize("name", brute_force.LABELS)
def test_value_and_gradient_are_those_of_the_loops(name: str, mining: str) -> None:
    for seed, epsilon, beta, lam in [(0, 0.25, 0.0, 1.0), (1, 0.6, 0.4, 0.5), (2, 0.0, -1.0, 2.0), (3, 0.3, 1.0, 1.0)]:
        x, y = brute_force.batch(name, seed)
        triplets = brute_force.triplet_terms(x, y, epsilon, mining)
        close = brute_force.pair_terms(x, y, beta)
        triplet, pair = brute_force.mean(triplets), brute_force.mean(close)
        got = AdaTriplet(lam, mining)(Pairs.of(x, y), Margin.of(epsilon, beta))
        assert abs(got.total - (triplet + lam * pair)) < 1e-9
        assert abs(got.parts["triplet"] - triplet) < 1e-9
        assert abs(got.parts["pair"] - pair) < 1e-9
        grad = brute_force.gradient(got.total, x)
        torch.testing.assert_close(grad, brute_force.gradient(triplet + lam * pair, x), atol=1e-9, rtol=0)
        every = len(brute_force.negative_pairs(y))
        assert got.active["pair"] == (len(close) / every if every else 0)


def test_as_published_with_pytorch_metric_learning() -> None:
    # The authors' recipe: PML's triplets; their (a, n) sorted into a set; the pairs above beta, averaged.
    for seed in range(5):
        x, y = brute_force.batch("images alone in their class", seed, spread=1.0)
        mined = TripletMarginMiner(0.4, type_of_triplets="semihard", distance=CosineSimilarity())(x, y)
        triplet = TripletMarginLoss(0.4, distance=CosineSimilarity())(x, y, mined)
        a, _, n = get_all_triplets_indices(y)
        pairs = {tuple(sorted(pair)) for pair in zip(a.tolist(), n.tolist(), strict=True)}
        sim = brute_force.similarities(x)
        above = [sim[i, j] - 0.1 for i, j in pairs if sim[i, j] >= 0.1]
        want = triplet + brute_force.mean(above)
        got = AdaTriplet()(Pairs.of(x, y), Margin.of(0.4, 0.1))
        assert abs(got.total - want) < 1e-9
        torch.testing.assert_close(brute_force.gradient(got.total, x), brute_force.gradient(want, x), atol=1e-9, rtol=0)


def test_by_hand() -> None:
    # negative pairs 0.6 and 0.96 above beta 0.5: (0.1 + 0.46) / 2 = 0.28; semihard triplets: 0.05 (see test_triplet)
    x, y = torch.tensor([[1, 0], [0.8, 0.6], [0.6, 0.8]], dtype=torch.float64), torch.tensor([0, 0, 1])
    terms = AdaTriplet(lam=0.5)(Pairs.of(x, y), Margin.of(0.25, 0.5))
    assert terms.total.item() == pytest.approx(0.05 + 0.5 * 0.28, abs=1e-12)
    assert terms.active == {"triplet": 0.5, "pair": 1.0}


def test_without_the_pair_term_it_is_the_triplet_loss() -> None:
    x, y = brute_force.batch("unequal classes")
    pairs, margin = Pairs.of(x, y), Margin.of(0.4, -1.0)
    assert AdaTriplet(lam=0)(pairs, margin).total == Triplet()(pairs, margin).total


def test_the_hardest_triplets_are_acted_on_through_the_pair_term_alone() -> None:
    # gap -0.3 with similarities sim_ap 0.5 and sim_an 0.8: d/d sim_an is lam / 1 pair, sim_ap is left alone
    sim = torch.tensor([[1.0, 0.5, 0.8], [0.5, 1.0, -0.9], [0.8, -0.9, 1.0]], dtype=torch.float64, requires_grad=True)
    pairs = Pairs.of(torch.eye(3, dtype=torch.float64), torch.tensor([0, 0, 1]))
    object.__setattr__(pairs, "sim", sim)
    AdaTriplet()(pairs, Margin.of(0.25, 0.5)).total.backward()
    assert sim.grad is not None
    assert sim.grad.tolist() == [[0, 0, 1], [0, 0, 0], [0, 0, 0]]


@pytest.mark.parametrize("name", ["one class, no negative", "no positive", "one image"])
def test_an_empty_set_is_exactly_zero_with_a_zero_gradient(name: str) -> None:
    x, y = brute_force.batch(name)
    terms = AdaTriplet(mining="all")(Pairs.of(x, y), Margin.of(2.0, -1.0))
    terms.total.backward()
    assert terms.total == 0
    assert terms.active == {"triplet": 0, "pair": 0}
    assert x.grad is not None
    assert torch.equal(x.grad, torch.zeros_like(x))


def test_a_negative_weight_is_refused() -> None:
    with pytest.raises(InputError, match=r"AdaTriplet.lam must be 0 or more, not -1.0"):
        AdaTriplet(lam=-1)
