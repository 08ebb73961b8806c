from __future__ import annotations

import math

import brute_force
import pytest
import released
import torch
from pytorch_metric_learning.distances import CosineSimilarity
from pytorch_metric_learning.losses import TripletMarginLoss
from pytorch_metric_learning.miners import TripletMarginMiner
from pytorch_metric_learning.reducers import ThresholdReducer
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


@pytest.mark.parametrize("mining", ["semihard", "all", "hard", "easy"])
@pytest.mark.parametrize("name", brute_force.LABELS)
def test_the_smooth_hinge_is_that_of_the_loops(name: str, mining: str) -> None:
    for seed, epsilon, spread in [(0, 0.25, 0.6), (1, 0.0, 1.0), (2, 1.2, 1.0)]:
        x, y = brute_force.batch(name, seed, spread)
        terms = [brute_force.softplus(t) for t in brute_force.mined_triplets(x, y, epsilon, mining)]
        want = brute_force.mean(terms)
        got = AdaTriplet(lam=0, mining=mining, smooth=True)(Pairs.of(x, y), Margin.of(epsilon, 1.0))
        assert abs(got.total - want) < 1e-9
        grad = brute_force.gradient(got.total, x)
        torch.testing.assert_close(grad, brute_force.gradient(want, x), atol=1e-9, rtol=0)
        every = len(brute_force.triplets(y))
        assert got.active["triplet"] == (len(terms) / every if every else 0)


@pytest.mark.parametrize("mining", ["semihard", "easy"])
def test_the_smooth_hinge_is_that_of_pytorch_metric_learning(mining: str) -> None:
    generator = torch.Generator().manual_seed(5)
    y = torch.arange(520) // 4  # more rows than one chunk has
    x = torch.randn(260, 8, generator=generator, dtype=torch.float64).repeat_interleave(2, 0)
    x = (x + 0.7 * torch.randn(520, 8, generator=generator, dtype=torch.float64)).requires_grad_()
    mined = TripletMarginMiner(0.3, type_of_triplets=mining, distance=CosineSimilarity())(x, y)
    library = TripletMarginLoss(0.3, smooth_loss=True, distance=CosineSimilarity(), reducer=ThresholdReducer(low=0))
    want = library(x, y, mined)
    got = AdaTriplet(lam=0, mining=mining, smooth=True)(Pairs.of(x, y, max_positives=3), Margin.of(0.3, 1.0)).total
    assert abs(got - want) < 1e-9
    torch.testing.assert_close(brute_force.gradient(got, x), brute_force.gradient(want, x), atol=1e-9, rtol=0)


@pytest.mark.parametrize("pair", ["hinge", "lse"])
@pytest.mark.parametrize("name", brute_force.LABELS)
def test_the_pair_terms_are_those_of_the_loops(name: str, pair: str) -> None:
    soft = brute_force.softplus if pair == "lse" else lambda x: x
    for seed, beta, beta_p, spread in [(0, 0.0, 0.5, 0.6), (1, 0.4, 0.9, 1.0), (2, -1.0, -1.0, 1.0)]:
        x, y = brute_force.batch(name, seed, spread)
        sim = brute_force.similarities(x)
        near = [soft(t) for t in brute_force.pair_terms(x, y, beta)]
        far = [soft(beta_p - sim[i, j]) for i, j in brute_force.positive_pairs(y) if sim[i, j] <= beta_p]
        want = 0.6 * brute_force.mean(near) + 1.7 * brute_force.mean(far)
        loss = AdaTriplet(lam=0.6, mining="easy", pair=pair, pull=1.7)  # easy: no triplet term
        got = loss(Pairs.of(x, y), Margin.of(0.25, beta, beta_p=beta_p))
        assert abs(got.total - want) < 1e-9
        grad = brute_force.gradient(got.total, x)
        torch.testing.assert_close(grad, brute_force.gradient(want, x), atol=1e-9, rtol=0)
        every = len(brute_force.positive_pairs(y))
        assert got.active["positive"] == (len(far) / every if every else 0)


def test_the_options_by_hand() -> None:
    # sim_ap 0.8, sim_an 0.6 and 0.96; beta 0.5, beta_p 0.9: excesses 0.1 and 0.46, short by 0.1
    x, y = torch.tensor([[1, 0], [0.8, 0.6], [0.6, 0.8]], dtype=torch.float64), torch.tensor([0, 0, 1])
    pairs, margin = Pairs.of(x, y), Margin.of(0.25, 0.5, beta_p=0.9)
    pull = AdaTriplet(pull=2.0)(pairs, margin)
    assert pull.total.item() == pytest.approx(0.05 + 0.28 + 2 * 0.1, abs=1e-12)
    assert pull.parts["positive"].item() == pytest.approx(0.1, abs=1e-12)
    lse = AdaTriplet(pair="lse")(pairs, margin).parts["pair"]
    assert lse.item() == pytest.approx((math.log(1 + math.exp(0.1)) + math.log(1 + math.exp(0.46))) / 2, abs=1e-12)
    smooth = AdaTriplet(smooth=True)(pairs, margin).parts["triplet"]  # the semihard one of gap 0.2
    assert smooth.item() == pytest.approx(math.log(1 + math.exp(0.05)), abs=1e-12)


@pytest.mark.parametrize("pair", ["hinge", "lse"])
def test_the_released_pair_terms_are_ours_where_nothing_is_wrong_with_them(pair: str) -> None:
    lse = pair == "lse"
    x, y = brute_force.batch("unequal classes", 1)
    got = AdaTriplet(mining="easy", pair=pair)(Pairs.of(x, y), Margin.of(0.25, 0.1)).total
    assert abs(got - released.pair_terms(x, y, 0.1, lse=lse)) < 1e-9
    far = AdaTriplet(mining="easy", pair=pair, pull=1.0)(Pairs.of(x, y), Margin.of(0.25, 1.0, beta_p=0.9)).total
    assert abs(far - released.pair_terms(x, y, 1.0, 0.9, lse)) < 1e-9  # no negative pair is as near as that


def test_the_released_code_forgets_the_softplus_of_a_single_pair() -> None:
    x, y = torch.tensor([[1, 0], [0.8, 0.6], [0.6, 0.8]], dtype=torch.float64), torch.tensor([0, 0, 1])
    assert released.pair_terms(x, y, 0.9, lse=True).item() == pytest.approx(0.06)
    got = AdaTriplet(mining="easy", pair="lse")(Pairs.of(x, y), Margin.of(0.25, 0.9)).total
    assert got.item() == pytest.approx(math.log(1 + math.exp(0.06)), abs=1e-12)


def test_the_released_positive_term_doubles_the_negative_one() -> None:
    x, y = brute_force.batch("unequal classes", 1)
    terms = AdaTriplet(mining="easy", pull=1.0)(Pairs.of(x, y), Margin.of(0.25, 0.1, beta_p=0.9))
    negative, positive = terms.parts["pair"], terms.parts["positive"]
    assert negative > 0 and positive > 0
    assert abs(terms.total - (negative + positive)) < 1e-12
    assert abs(released.pair_terms(x, y, 0.1, 0.9) - (2 * negative + positive)) < 1e-9


def test_the_released_positive_term_needs_a_negative_in_the_batch() -> None:
    x, y = brute_force.batch("one class, no negative")
    assert released.pair_terms(x, y, 0.1, 1.0) == 0
    assert AdaTriplet(pull=1.0)(Pairs.of(x, y), Margin.of(0.25, 0.1, beta_p=1.0)).total > 0


def test_the_positive_term_reads_a_slot_of_its_own() -> None:
    assert AdaTriplet().slots == ("epsilon", "beta")
    assert AdaTriplet(pull=0.5).slots == ("epsilon", "beta", "beta_p")


def test_options_out_of_range_are_refused() -> None:
    with pytest.raises(InputError, match=r"AdaTriplet.lam must be 0 or more, not -1.0"):
        AdaTriplet(lam=-1)
    with pytest.raises(InputError, match=r"AdaTriplet.pull must be 0 or more, not -1.0"):
        AdaTriplet(pull=-1)
    with pytest.raises(InputError, match=r"AdaTriplet.pair cannot be 'softplus'; choose one of hinge: sim_an - beta"):
        AdaTriplet(pair="softplus")
