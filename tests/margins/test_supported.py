"""Every loss with every policy that fits it, through ``fit``: the margins after two epochs, worked out by hand."""

from __future__ import annotations

import math
from typing import Any

import planted
import pytest

from marginlab import losses
from marginlab.losses import AdaTriplet, LossTerms, Pairs, Triplet
from marginlab.margins import (
    POLICIES,
    AutoMargin,
    CosineMargin,
    EasyShareMargin,
    FixedMargin,
    Margin,
    MovingAverage,
    NoMargin,
    PerBatch,
    PositiveBound,
    QuantileMargin,
    StepMargin,
    supports,
)
from marginlab.training import fit
from marginlab.values import value
from tests.tiny import Keep

LOSSES = [Triplet(), AdaTriplet(), AdaTriplet(pull=1)]

# Policy, and epsilon, beta, beta_p after the epochs Q P and R P of planted.py. The second epoch has gaps 0, 0, 0.5 four times,
# 1 four times, 1.5 four times, 2, 2 (mean 1) and negatives -1, -1, -0.5, -0.5, 0, 0, 0.5, 0.5 (mean -0.25), positives' mean 0.75.
BY_HAND: list[tuple[Any, tuple[float, ...]]] = [
    (FixedMargin(0.25, 0.125), (0.25, 0.125)),
    (AutoMargin(2, 2), (1 / 2, 1 - 1.25 / 2)),
    (AutoMargin(4, 5), (1 / 4, 1 - 1.25 / 5)),
    # A quarter of 16 gaps: the fourth and the fifth are 0.5. Three quarters of 8 negatives: between 0 and 0.5.
    (QuantileMargin(), (0.5, 0.25)),
    # The eighth and the ninth gap are 1; the fourth and the fifth negative are -0.5 and 0.
    (QuantileMargin(0.5, 0.5), (1, -0.25)),
    # The last batch was P: gaps' mean 0.5, negatives' mean 0.25.
    (PerBatch(AutoMargin()), (0.25, 1 - 0.75 / 2)),
    # Of P alone: the second and the third of 8 gaps are 0 and 0.5; the third and the fourth negative are 0.5.
    (PerBatch(QuantileMargin()), (0.25, 0.5)),
    # Half of the first epoch's sums and counts and all of the second's: gaps (6 + 16) / (8 + 16), negatives (0.5 - 2) / (4 + 8).
    (MovingAverage(AutoMargin(), decay=0.5), (22 / 24 / 2, 1 - 1.125 / 2)),
    # Q, P, R, P weigh 1/8, 1/4, 1/2, 1: gaps (1 + 1 + 6 + 4) / 15, negatives (0 + 1/4 - 3/2 + 1) / 7.5 = -1/30.
    (PerBatch(MovingAverage(AutoMargin(), decay=0.5)), (0.8 / 2, 1 - (1 + 1 / 30) / 2)),
    # Weights of the epochs' gaps 1/2 and 1, that is of 24 halves: 0 weighs 1 + 2, 0.5 2 + 4, which make 9 and pass the quarter 6.
    # Negatives: -1 weighs 2, -0.5 2, 0 (6 halves and 2) 5, 0.5 (2 halves and 2) 3, of 12: three quarters, 9, end with 0.
    (MovingAverage(QuantileMargin(), decay=0.5), (0.5, 0.25)),
    (PositiveBound(AutoMargin(), k_p=3), (1 / 2, 1 - 1.25 / 2, 0.75 / 3)),
    (PositiveBound(FixedMargin(), k_p=None, beta_p=0.5), (0.25, 0, 0.5)),
    (PerBatch(PositiveBound(AutoMargin())), (0.25, 1 - 0.75 / 2, 0.75 / 2)),
    (PositiveBound(MovingAverage(AutoMargin(), decay=0.5)), (22 / 24 / 2, 1 - 1.125 / 2, 0.75 / 2)),
    (CosineMargin(0.1, 0.5, 0, -0.5, epochs=4), (0.3, -0.25)),
    (CosineMargin(0.1, 0.5, 0.25, epochs=2), (0.5, 0.25)),
    (CosineMargin(0.5, 0.1, epochs=3), (0.1 + 0.4 * 0.25, 0)),  # cos of two thirds of pi is -1/2
    (StepMargin(0.1, 0.2, 0, 0.25, at=(1, 2)), (0.5, 0.5)),
    (StepMargin(0.5, -0.25, at=(2, 3)), (0.25, 0)),
    # Above 0.475 are 14 of 16 gaps: 0.475 + 0.4 (0.875 - 0.5) = 0.625. Above that are 8 of R and 2 of P: + 0.4 (0.625 - 0.5).
    (EasyShareMargin(0.5, 0.4, epsilon=0.475), (0.675, 0)),
    # All of Q, none of P above 1 - tiny ... 1 is not above 1: 0 of 16, lowered by 0.5; above 0.5 are 8 and 2 of 16.
    (EasyShareMargin(0.75, 2 / 3, epsilon=1), (0.5 - 2 / 3 * 0.125, 0)),
    # Q: all 8 easy, 0.25 + 0.5 * 0.5; P: 2 of 8 above 0.5, - 0.125; R: 8, + 0.25; P: above 0.625 are 2, - 0.125.
    (PerBatch(EasyShareMargin(0.5, 0.5)), (0.5, 0)),
]
PAIRS = [(loss, policy, want) for loss in LOSSES for policy, want in BY_HAND if supports(loss, policy)]


@pytest.mark.parametrize(("loss", "policy", "want"), PAIRS, ids=[f"{loss}-{policy}" for loss, policy, _ in PAIRS])
def test_the_margins_after_two_epochs(loss: Any, policy: Any, want: tuple[float, ...]) -> None:
    seen = Keep()
    fit(planted.run(loss, policy), planted.data(), seen, device="cpu")
    got = seen.states[2]
    assert [float(got[f"margin/{slot}"]) for slot in policy.sets] == pytest.approx(want, abs=1e-12)
    if not hasattr(policy, "after_batch"):  # what the second epoch left is what the third was trained with
        assert [seen.rows[3][f"margin/{slot}"] for slot in policy.sets] == pytest.approx(want, abs=1e-12)


def test_every_supported_pair_was_among_them() -> None:
    tested = {(str(loss), type(policy)) for loss, policy, _ in PAIRS}
    assert {(str(loss), type(p)) for loss in LOSSES for p in POLICIES if supports(loss, p)} <= tested
    shipped = [getattr(losses, name) for name in losses.__all__]
    assert {k for k in shipped if hasattr(k, "slots") and k().slots} == {type(loss) for loss in LOSSES}


SEEN: list[Margin] = []


@value
class Watched:
    """A triplet loss that notes the margin it is given."""

    slots = ("epsilon", "beta")

    def __call__(self, pairs: Pairs, margin: Margin) -> LossTerms:
        SEEN.append(margin)
        return Triplet()(pairs, margin)


def test_a_batch_is_trained_with_what_the_batch_before_it_gave() -> None:
    SEEN.clear()
    seen = Keep()
    fit(planted.run(Watched(), PerBatch(AutoMargin(epsilon=0.375, beta=-0.5))), planted.data(), seen, device="cpu")
    after = {"Q": (0.5, 0.5), "P": (0.25, 0.625), "R": (0.75, 0.125)}
    want = [(0.375, -0.5), after["Q"], after["P"], after["R"], after["P"], after["Q"]]
    assert [(float(m.epsilon), float(m.beta)) for m in SEEN] == want
    # Recorded are the margins of an epoch's last batch.
    assert [(row["margin/epsilon"], row["margin/beta"]) for row in seen.rows[1:]] == [want[1], want[3], want[5]]


def test_a_loss_without_margins_records_none() -> None:
    @value
    class Without:
        slots = ()

        def __call__(self, pairs: Pairs, margin: Margin) -> LossTerms:
            return Triplet()(pairs, Margin.of(0.5))

    seen = Keep()
    fit(planted.run(Without(), NoMargin()), planted.data(), seen, device="cpu")
    assert math.isnan(seen.states[2]["margin/epsilon"]) and math.isnan(seen.states[2]["margin/beta"])
    assert [k for row in seen.rows for k in row if k.startswith("margin/")] == []
