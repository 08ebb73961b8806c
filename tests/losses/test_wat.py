from __future__ import annotations

import brute_force
import pytest
import released
import torch

from marginlab.losses import WAT, Pairs, Triplet
from marginlab.margins import Margin
from marginlab.values import InputError

NOTHING = Margin.of()


@pytest.mark.parametrize("k", [0.0, 2.0, 3.5])
@pytest.mark.parametrize("name", brute_force.LABELS)
def test_value_and_gradient_are_those_of_the_loops(name: str, k: float) -> None:
    for seed in range(3):
        x, y = brute_force.batch(name, seed, spread=1.0)
        terms = []
        for short in brute_force.mined_triplets(x, y, 0.0, "all") + brute_force.mined_triplets(x, y, 0.0, "easy"):
            own = k + (2 - 2 * -short) / (4 - k)  # the margin of the triplet, whose gap is -short
            if own + short > 0:
                terms.append(own + short)
        want = (4 - k) / (6 - k) * brute_force.mean(terms)
        got = WAT(k)(Pairs.of(x, y), NOTHING)
        assert abs(got.total - want) < 1e-9
        # (the margin is a part of the loops' graph, so that their gradient is that of the closed form)
        torch.testing.assert_close(brute_force.gradient(got.total, x), brute_force.gradient(want, x), atol=1e-9, rtol=0)
        every = len(brute_force.triplets(y))
        assert got.active["triplet"] == (len(terms) / every if every else 0)


def test_the_closed_form_by_hand() -> None:
    assert [WAT(k).epsilon for k in (0, 1, 2, 3)] == pytest.approx([1 / 3, 1.0, 1.5, 5 / 3])
    # k = 2, gap 0.2 (see test_triplet): its own margin is 2 + 1.6 / 2 = 2.8, short by 2.6 = 2 (1.5 - 0.2)
    # gap -0.16: margin 2 + 2.32 / 2 = 3.16, short by 3.32 = 2 (1.5 + 0.16). Half their mean:
    x, y = torch.tensor([[1, 0], [0.8, 0.6], [0.6, 0.8]], dtype=torch.float64), torch.tensor([0, 0, 1])
    assert WAT()(Pairs.of(x, y), NOTHING).total.item() == pytest.approx((2.6 + 3.32) / 4, abs=1e-12)


def test_it_is_the_triplet_loss_over_all_triplets_at_its_margin() -> None:
    x, y = brute_force.batch("unequal classes")
    pairs = Pairs.of(x, y)
    assert WAT(0.7)(pairs, NOTHING).total == Triplet("all")(pairs, Margin.of(WAT(0.7).epsilon)).total


@pytest.mark.parametrize("k", [0.0, 2.0, 3.0])
def test_the_released_code_has_the_same_gradient_and_a_value_that_does_not_belong_to_it(k: float) -> None:
    for seed in range(4):
        x, y = brute_force.batch("unequal classes", seed, spread=1.5)
        ours, theirs = WAT(k)(Pairs.of(x, y), NOTHING).total, released.wat(x, y, k)
        assert abs(ours - (4 - k) / (6 - k) * theirs) < 1e-9
        torch.testing.assert_close(brute_force.gradient(ours, x), brute_force.gradient(theirs, x), atol=1e-9, rtol=0)


@pytest.mark.parametrize("k", [-0.1, 4.0])
def test_a_margin_without_meaning_is_refused(k: float) -> None:
    with pytest.raises(InputError, match=r"WAT.k must be in 0..4 and below 4"):
        WAT(k)
