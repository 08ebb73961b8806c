from __future__ import annotations

from typing import Any, ClassVar

import pytest

from marginlab import losses
from marginlab.losses import AdaTriplet, Triplet
from marginlab.margins import (
    POLICIES,
    SLOTS,
    AutoMargin,
    CosineMargin,
    EasyShareMargin,
    FixedMargin,
    MovingAverage,
    NoMargin,
    PerBatch,
    PositiveBound,
    QuantileMargin,
    StepMargin,
    fits,
    matrix,
    supports,
)
from marginlab.values import InputError, fingerprint, from_json, to_json, value


@value
class Angular:
    slots: ClassVar[tuple[str, ...]] = ("elbow",)


@value
class Pulled:
    slots: ClassVar[tuple[str, ...]] = ("epsilon", "beta_p")


@value
class Marginless:
    slots: ClassVar[tuple[str, ...]] = ()


def test_a_policy_fits_when_it_sets_every_slot_the_loss_reads() -> None:
    fits(Triplet(), FixedMargin(beta=None))
    fits(Triplet(), AutoMargin())
    fits(AdaTriplet(), FixedMargin())
    fits(AdaTriplet(), AutoMargin())
    fits(Pulled(), PositiveBound(FixedMargin()))
    fits(Marginless(), NoMargin())


def test_a_policy_that_leaves_a_slot_open_is_refused_with_what_fits() -> None:
    with pytest.raises(InputError) as refused:
        fits(AdaTriplet(), FixedMargin(beta=None))
    assert str(refused.value) == (
        "AdaTriplet reads beta (the bound that the similarity of a negative pair should stay below; cosine, -1..1), which "
        "FixedMargin(epsilon=0.25, beta=None) does not set: it sets epsilon (the gap wanted between the similarities of a "
        "positive and of a negative pair; cosine, 0..2). What fits AdaTriplet: FixedMargin, AutoMargin, QuantileMargin, "
        "PerBatch(AutoMargin), MovingAverage(AutoMargin), PositiveBound(AutoMargin), CosineMargin, StepMargin, "
        "EasyShareMargin; or take a loss that reads nothing but epsilon."
    )


def test_a_policy_is_refused_where_it_would_change_nothing() -> None:
    with pytest.raises(InputError) as refused:
        fits(Marginless(), FixedMargin())
    assert str(refused.value) == (
        "Marginless reads no margin, so FixedMargin(epsilon=0.25, beta=0.0) would change nothing. What fits Marginless: NoMargin."
    )
    with pytest.raises(InputError, match=r"Triplet reads epsilon .* which NoMargin\(\) does not set: it sets nothing"):
        fits(Triplet(), NoMargin())


def test_a_slot_that_one_policy_sets_leads_to_it() -> None:
    with pytest.raises(InputError, match=r"Pulled reads beta_p .* What fits Pulled: PositiveBound\(AutoMargin\); or"):
        fits(Pulled(), AutoMargin())


def test_a_slot_nobody_sets_is_refused() -> None:
    with pytest.raises(InputError, match=r"Angular reads elbow, which AutoMargin.* no built-in policy"):
        fits(Angular(), AutoMargin())


def test_the_matrix_is_what_fits_says() -> None:
    rows = [line.strip("| ").split(" | ") for line in matrix([Triplet(), Pulled(), Marginless()]).splitlines()]
    assert rows[0][:5] == ["loss", "reads", "NoMargin", "FixedMargin", "AutoMargin"]
    cells = [
        [c.strip() for c in line.split("|")][1:-1]
        for line in matrix([Triplet(), Pulled(), Marginless()]).splitlines()[2:]
    ]
    assert [row[:2] for row in cells] == [
        ["Triplet", "epsilon"],
        ["Pulled", "epsilon, beta_p"],
        ["Marginless", "nothing"],
    ]
    for row, loss in zip(cells, (Triplet(), Pulled(), Marginless()), strict=True):
        for cell, policy in zip(row[2:], POLICIES, strict=True):
            try:
                fits(loss, policy)
                assert cell == "yes" and supports(loss, policy)
            except InputError:
                assert cell == "" and not supports(loss, policy)


def test_every_shipped_loss_reads_known_slots_and_has_a_policy() -> None:
    kinds = [getattr(losses, name) for name in losses.__all__]
    shipped = [kind() for kind in kinds if hasattr(kind, "slots")] + [AdaTriplet(pull=1)]
    for loss in shipped:
        assert set(loss.slots) <= set(SLOTS), loss
        assert any(supports(loss, p) for p in POLICIES), loss
    assert {slot for loss in shipped for slot in loss.slots} == set(SLOTS)  # and no slot is there for nothing


def test_every_shipped_policy_sets_known_slots_and_starts_in_range() -> None:
    for policy in POLICIES:
        margin = policy.start()
        for slot in policy.sets:
            assert SLOTS[slot].low <= margin[slot].item() <= SLOTS[slot].high
            assert margin[slot].shape == () and str(margin[slot].dtype) == "torch.float64"


def test_policies_are_values_of_one_module_whatever_file_they_live_in() -> None:
    for policy in (*POLICIES, FixedMargin(0.3, None), AutoMargin(k_an=3)):
        assert from_json(to_json(policy)) == policy
        assert to_json(policy)["type"] == f"marginlab.margins:{type(policy).__name__}"
    # Runs were recorded with these.
    assert fingerprint(FixedMargin()) == "64770c617eae333f" and fingerprint(AutoMargin()) == "507f28982935d0a9"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: AutoMargin(k_delta=0.5), "AutoMargin.k_delta must be 1 or more, not 0.5"),
        (lambda: AutoMargin(k_an=0), "AutoMargin.k_an must be 1 or more, not 0.0"),
        (lambda: AutoMargin(beta=2), r"AutoMargin.beta must be in -1..1, not 2.0: it is a cosine\."),
        (
            lambda: FixedMargin(-0.1),
            r"FixedMargin.epsilon must be in 0..2, not -0.1: it is a difference of two cosines\.",
        ),
        (lambda: FixedMargin(beta=1.5), "FixedMargin.beta must be in -1..1, not 1.5"),
        (lambda: QuantileMargin(gap=1), "QuantileMargin.gap must lie between 0 and 1, not 1.0: 0.5 is the median"),
        (lambda: QuantileMargin(negative=75), "QuantileMargin.negative must lie between 0 and 1, not 75.0"),
        (lambda: QuantileMargin(epsilon=3), "QuantileMargin.epsilon must be in 0..2, not 3.0"),
        (lambda: CosineMargin(epochs=0), "CosineMargin.epochs must be at least 1, not 0"),
        (lambda: CosineMargin(epsilon_end=2.5), "CosineMargin.epsilon_end must be in 0..2, not 2.5"),
        (lambda: CosineMargin(beta_end=-2), "CosineMargin.beta_end must be in -1..1, not -2.0"),
        (
            lambda: CosineMargin(beta=None, beta_end=0.5),
            "CosineMargin has beta=None, so it sets no beta: give the beta of",
        ),
        (
            lambda: StepMargin(at=(30, 10)),
            r"StepMargin.at must be numbers of epochs, 1 or more and rising, .* not \(30, 10\)",
        ),
        (lambda: StepMargin(at=(0, 10)), r"StepMargin.at must be numbers of epochs, 1 or more"),
        (lambda: StepMargin(at=(5, 5)), r"StepMargin.at must be numbers of epochs"),
        (lambda: StepMargin(at=()), r"StepMargin.at must be numbers of epochs"),
        (lambda: StepMargin(at=(1.5,)), r"StepMargin.at must be numbers of epochs"),
        (lambda: StepMargin(at=30), r"StepMargin.at must be numbers of epochs"),  # type: ignore[arg-type]
        (
            lambda: StepMargin(0.5, 1),
            r"After the last of its 2 steps, StepMargin.epsilon must be in 0..2, not 2.5: it is",
        ),
        (lambda: StepMargin(beta=None, beta_step=0.1), "StepMargin has beta=None"),
        (lambda: EasyShareMargin(target=1), "EasyShareMargin.target is a share between 0 and 1, not 1.0"),
        (lambda: EasyShareMargin(rate=0), "EasyShareMargin.rate must be above 0, not 0.0"),
        (
            lambda: EasyShareMargin(highest=0.2),
            r"EasyShareMargin.epsilon \(0.25\) must lie in lowest..highest \(0.0..0.2\)",
        ),
        (lambda: EasyShareMargin(highest=3), "EasyShareMargin.highest must be in 0..2, not 3.0"),
        (lambda: MovingAverage(AutoMargin(), 1), "MovingAverage.decay must lie between 0 and 1, not 1.0"),
        (
            lambda: MovingAverage(FixedMargin()),
            "MovingAverage would change nothing in FixedMargin, which does not learn",
        ),
        (
            lambda: MovingAverage(AutoMargin),
            r"MovingAverage goes around a margin policy, such as MovingAverage\(AutoMargin\(\)\)",
        ),
        (
            lambda: MovingAverage(PerBatch(AutoMargin())),
            r"MovingAverage cannot go around PerBatch\(AutoMargin\).* PerBatch goes outside",
        ),
        (lambda: PerBatch(PerBatch(AutoMargin())), r"PerBatch cannot go around PerBatch\(AutoMargin\)"),
        (lambda: PerBatch(0.5), "PerBatch goes around a margin policy, .* not 0.5"),
        (lambda: PerBatch(StepMargin()), "PerBatch would change nothing in StepMargin"),
        (lambda: PerBatch(PositiveBound(CosineMargin())), "a schedule counts epochs, not batches"),
        (lambda: PositiveBound(AutoMargin(), beta_p=-2), "PositiveBound.beta_p must be in -1..1, not -2.0"),
        (lambda: PositiveBound(AutoMargin(), k_p=0.5), "PositiveBound.k_p must be 1 or more, not 0.5"),
    ],
)
def test_values_out_of_range_are_refused(make: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()
