from __future__ import annotations

import math

import brute_force
import pytest
import released
import torch

from marginlab.losses import FineTriplet, Pairs
from marginlab.margins import Margin
from marginlab.values import InputError

NOTHING = Margin.of()


@pytest.mark.parametrize("degrees", [True, False])
@pytest.mark.parametrize("name", brute_force.LABELS)
def test_value_and_gradient_are_those_of_the_loops(name: str, degrees: bool) -> None:
    for seed, margin, scale, spread in [
        (0, 0.25, 1.0, 0.6),
        (1, 0.4, 7.0, 1.5),
        (2, 0.0, 3.0, 1.0),
        (3, 1.0, 2.0, 1.0),
    ]:
        x, y = brute_force.batch(name, seed, spread, dim=6)
        want = brute_force.fine_triplet(x, y, margin, scale, degrees)
        got = FineTriplet(margin, scale, degrees)(Pairs.of(x, y), NOTHING)
        assert abs(got.total - want) < 1e-9
        grad = brute_force.gradient(got.total, x)
        torch.testing.assert_close(grad, brute_force.gradient(want, x), atol=1e-9, rtol=1e-9)
        sim = brute_force.similarities(x)
        short = [bool(sim[i, j] < 1 - margin) for i, j in brute_force.positive_pairs(y)]
        assert got.active["positive"] == (sum(short) / len(short) if short else 0)


def test_by_hand() -> None:
    # Similarities 0.8 (positive), 0 and 0.6 (negatives); m = 0.25. Without degrees the exponents are
    # 0.04 - 0.0625 = -0.0225; 0 - 0.0625; 0.36 - 0.0625 = 0.2975.
    x, y = torch.tensor([[1, 0], [0.8, 0.6], [0, 1]], dtype=torch.float64), torch.tensor([0, 0, 1])
    positive, negative = math.exp(-0.0225), (math.exp(-0.0625) + math.exp(0.2975)) / 2
    terms = FineTriplet(degrees=False)(Pairs.of(x, y), NOTHING)
    assert terms.total.item() == pytest.approx(math.log(1 + positive * negative), abs=1e-12)
    assert terms.active == {"positive": 0, "negative": 0.5}
    # Image 0's halves agree wholly (e = 1), image 1's are orthogonal (e = 0.5): r = 2 / (2 + 0.5) = 0.8
    x = torch.tensor([[1, 0, 1, 0], [1, 0, 0, 1], [0, 1, 0, 1]], dtype=torch.float64)
    positive, negative = math.exp(0.8 * (0.25 - 0.0625)), (math.exp(-0.0625) + math.exp(0.25 - 0.0625)) / 2
    terms = FineTriplet()(Pairs.of(x, y), NOTHING)
    assert terms.total.item() == pytest.approx(math.log(1 + positive * negative), abs=1e-12)


def test_many_rows_in_chunks() -> None:
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(600, 8, generator=generator, dtype=torch.float64).requires_grad_()
    y = torch.arange(600) // 3
    upper = torch.ones(600, 600, dtype=torch.bool).triu(1)
    sim, same = brute_force.similarities(x), y[:, None] == y
    s, t = sim[same & upper], sim[~same & upper]
    positive = torch.exp(-torch.relu(1.25 - s) * (s - 0.75)).mean()
    want = torch.log(1 + positive * torch.exp(torch.relu(t + 0.25) * (t - 0.25)).mean())
    got = FineTriplet(degrees=False)(Pairs.of(x, y, max_positives=2), NOTHING).total
    assert abs(got - want) < 1e-9
    torch.testing.assert_close(brute_force.gradient(got, x), brute_force.gradient(want, x), atol=1e-9, rtol=0)


def test_with_equal_agreements_it_is_the_released_loss_but_for_the_numbers_of_pairs() -> None:
    x, y = brute_force.batch("unequal classes", dim=6)
    x = torch.cat([x, x], 1).detach()  # halves that agree wholly: r = 1 in both
    positives, negatives = len(brute_force.positive_pairs(y)), 45 - len(brute_force.positive_pairs(y))
    theirs = released.fine_triplet(x, y).expm1() / (positives * negatives)
    for loss in (FineTriplet(), FineTriplet(degrees=False)):
        assert abs(loss(Pairs.of(x, y), NOTHING).total.expm1() - theirs) < 1e-9


def test_the_released_loss_depends_on_the_order_of_the_batch_and_ours_does_not() -> None:
    x, y = brute_force.batch("P x K", dim=6)
    x, back = x.detach().abs() + 0.1, torch.arange(len(y) - 1, -1, -1)
    assert abs(released.fine_triplet(x, y) - released.fine_triplet(x[back], y[back])) > 1e-3
    ours = [FineTriplet()(Pairs.of(x[order], y[order]), NOTHING).total for order in (back, back.flip(0))]
    assert abs(ours[0] - ours[1]) < 1e-12


def test_the_released_degree_is_unbounded_and_ours_is_not() -> None:
    # image 0's halves are all but orthogonal, image 1's agree: d_1 / d_0 = 1e6 in a pair short of its target
    x = torch.tensor([[1, 0, 1e-6, 1], [-1, 1, -1, 1], [0, -1, 0, -1]], dtype=torch.float64)
    y = torch.tensor([0, 0, 1])
    assert released.fine_triplet(x, y).isinf()
    assert FineTriplet()(Pairs.of(x, y), NOTHING).total < 2
    x = torch.tensor([[1, 1, -1, -1], [1, 1, -1, -1], [1, 2, 2, -1]], dtype=torch.float64)  # halves opposite: e = 0
    x.requires_grad_()
    total = FineTriplet()(Pairs.of(x, y), NOTHING).total
    assert total.isfinite() and brute_force.gradient(total, x).isfinite().all()


def test_the_released_loss_grows_with_the_batch_and_ours_does_not() -> None:
    x, y = brute_force.batch("P x K", dim=6)
    x = x.detach()[[0, 1, 3, 4]]
    y = y[[0, 1, 3, 4]]
    far = torch.cat([x, x]), torch.cat([y, y + 10])  # twice the batch: its new pairs are like the old ones, or copies
    grown = released.fine_triplet(*far) - released.fine_triplet(x, y)
    assert grown > 1.5  # log(4 * 24 / (2 * 4)) = 2.5 if all were alike
    assert abs(FineTriplet()(Pairs.of(*far), NOTHING).total - FineTriplet()(Pairs.of(x, y), NOTHING).total) < 0.5


def test_the_degrees_learn_too() -> None:
    x, y = brute_force.batch("P x K", dim=6)
    grads = [brute_force.gradient(FineTriplet(degrees=d)(Pairs.of(x, y), NOTHING).total, x) for d in (True, False)]
    assert (grads[0] - grads[1]).abs().max() > 1e-4


def test_the_largest_scale_stays_finite_in_float32() -> None:
    x = torch.tensor([[1.0, 0, 1, 0], [-1, 0, -1, 0], [1, 0, 1, 0.0]], requires_grad=True)  # as wrong as can be
    for scale in (1.0, 80.0):
        total = FineTriplet(0.0, scale)(Pairs.of(x, torch.tensor([0, 0, 1])), NOTHING).total
        assert total.item() == pytest.approx(math.log1p(math.exp(4 * scale) * (math.exp(scale) + 1) / 2))
        assert torch.autograd.grad(total, x)[0].isfinite().all()


def test_an_odd_descriptor_is_refused_unless_there_are_no_degrees() -> None:
    x, y = brute_force.batch("P x K", dim=5)
    with pytest.raises(InputError, match="needs an even number of dimensions, not 5: let the network give an even dim"):
        FineTriplet()(Pairs.of(x, y), NOTHING)
    assert FineTriplet(degrees=False)(Pairs.of(x, y), NOTHING).total > 0


def test_options_out_of_range_are_refused() -> None:
    with pytest.raises(InputError, match=r"FineTriplet.margin must be in 0..1, not 1.5"):
        FineTriplet(margin=1.5)
    with pytest.raises(InputError, match=r"FineTriplet.scale must be above 0 and at most 80, not 100.0"):
        FineTriplet(scale=100)
