from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import planted
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from marginlab.losses import Pairs
from marginlab.margins import (
    POLICIES,
    AutoMargin,
    FixedMargin,
    Margin,
    MovingAverage,
    PerBatch,
    PositiveBound,
    QuantileMargin,
    Statistics,
    name_of,
    observe,
)
from marginlab.values import fingerprint, value, with_path


@value
class Widest:
    """A user's own: epsilon is the largest gap so far, remembered beside the margin, from sums of its own."""

    sets: ClassVar[tuple[str, ...]] = ("epsilon",)

    def start(self) -> Margin:
        return Margin.of(epsilon=0.25).also({"epochs": torch.zeros(())})

    def measure(self, pairs: Pairs, margin: Margin) -> dict[str, torch.Tensor]:
        return {"near": (pairs.sim * pairs.negative_pairs > 0.25).sum()}

    def after_epoch(self, margin: Margin, statistics: Statistics) -> Margin:
        share = statistics["near"] / statistics.sums[1, 1]
        return Margin.of(beta=0.0).also({"epochs": margin["epochs"] + 1, "share": share})


def test_a_policy_of_ones_own_is_measured_and_remembers_inside_others_too() -> None:
    policy = PositiveBound(MovingAverage(Widest(), decay=0.5))
    margin = policy.start()
    for name in "PQ":
        margin = policy.after_epoch(margin, observe(policy, planted.pairs(name), margin))
    assert margin["epochs"] == 2
    assert margin["share"].item() == (2 / 2 + 0) / (4 / 2 + 4)  # 2 of P's 4 negatives are near, none of Q's
    assert margin["beta_p"].item() == 0.5  # Q's positives are at 1
    assert policy.sets == ("epsilon", "beta_p")


def test_a_moving_average_weighs_by_age() -> None:
    """Against the weighted mean and quantile of all that was ever seen."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.tensor([0, 0, 1, 1, 1, 2, 3, 3])
    for policy in (MovingAverage(AutoMargin(1, 1), decay=0.75), MovingAverage(QuantileMargin(0.3, 0.6), decay=0.75)):
        margin, sums, values, weights = policy.start(), torch.zeros(3, 2, dtype=torch.float64), [], []
        for age in reversed(range(6)):
            x = (
                torch.randn(8, 3, generator=generator, dtype=torch.float64)
                + torch.nn.functional.one_hot(labels, 4)[:, :3]
            )
            pairs = Pairs.of(x, labels)
            margin = policy.after_epoch(margin, observe(policy, pairs, margin))
            sums += 0.75**age * Statistics.of(pairs).sums
            found = pairs.sim[pairs.negative_pairs]
            values += found.tolist()
            weights += [0.75**age] * len(found)
        order = np.argsort(values)
        share = np.cumsum(np.array(weights)[order]) / sum(weights)
        if isinstance(policy.policy, AutoMargin):
            assert margin.epsilon.item() == pytest.approx(max(0, (sums[0, 0] / sums[0, 1]).item()), abs=1e-12)
            assert margin.beta.item() == pytest.approx((sums[1, 0] / sums[1, 1]).item(), abs=1e-12)
        else:
            assert margin.beta.item() == pytest.approx(np.array(values)[order][np.searchsorted(share, 0.6)], abs=2**-11)


def test_a_batch_without_a_triplet_changes_nothing_but_the_weights() -> None:
    alone = Pairs.of(torch.eye(3), torch.tensor([0, 1, 2]))
    for policy in (
        PerBatch(AutoMargin()),
        PerBatch(MovingAverage(QuantileMargin())),
        PerBatch(PositiveBound(AutoMargin())),
    ):
        margin = policy.start()
        margin = policy.after_batch(margin, observe(policy, alone, margin))
        assert [margin[s].item() for s in policy.sets] == [0.25, 0.0, 0.0][: len(policy.sets)]
        seen = policy.after_batch(margin, observe(policy, planted.pairs("P"), margin))
        after = policy.after_batch(seen, observe(policy, alone, seen))
        assert [after[s].item() for s in policy.sets] == [seen[s].item() for s in policy.sets]
        assert policy.after_epoch(after, Statistics()) is after


class Waits(TorchDispatchMode):
    """Refuses what makes the host wait for a device: reading a number, or a shape that depends on the data."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        assert name not in ("_local_scalar_dense", "nonzero", "masked_select", "unique_dim", "_unique2"), name
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("policy", [*POLICIES, PerBatch(MovingAverage(QuantileMargin()))], ids=name_of)
def test_nothing_waits_for_the_device(policy: Any) -> None:
    pairs, margin = planted.pairs("R"), policy.start()
    with Waits():
        seen = observe(policy, pairs, margin)
        margin = getattr(policy, "after_batch", policy.after_epoch)(margin, seen)
        policy.after_epoch(margin, seen.add(seen))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("policy", [*POLICIES, PerBatch(MovingAverage(QuantileMargin()))], ids=name_of)
def test_on_a_gpu_the_margins_are_those_of_the_cpu_without_a_wait(policy: Any) -> None:
    found = {}
    for device in (torch.device("cpu"), torch.device("cuda")):
        x, labels = torch.tensor(planted.BATCHES["R"], device=device), torch.tensor([0, 0, 1, 1], device=device)
        margin = policy.start().to(device)
        pairs = Pairs.of(x, labels, max_positives=1)
        torch.cuda.set_sync_debug_mode("error" if device.type == "cuda" else "default")
        try:
            margin = getattr(policy, "after_batch", policy.after_epoch)(margin, observe(policy, pairs, margin))
        finally:
            torch.cuda.set_sync_debug_mode("default")
        found[device.type] = [margin[slot].item() for slot in policy.sets]
    assert found["cuda"] == found["cpu"]


def test_a_search_reaches_the_policy_inside() -> None:
    policy = with_path(PerBatch(MovingAverage(AutoMargin())), "policy.policy.k_delta", 4)
    assert (
        policy == PerBatch(MovingAverage(AutoMargin(k_delta=4)))
        and name_of(policy) == "PerBatch(MovingAverage(AutoMargin))"
    )
    assert fingerprint(policy) != fingerprint(PerBatch(MovingAverage(AutoMargin())))
    assert name_of(FixedMargin()) == "FixedMargin"
