"""A run that was cut off at the end of any epoch goes on bit for bit, with all that its policy remembers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from safetensors.torch import load, save

from marginlab.margins import (
    AutoMargin,
    CosineMargin,
    EasyShareMargin,
    MovingAverage,
    PerBatch,
    PositiveBound,
    QuantileMargin,
    StepMargin,
    name_of,
)
from marginlab.training import fit
from tests.tiny import Keep, timeless, tiny_data, tiny_run

POLICIES = [
    QuantileMargin(),
    PerBatch(AutoMargin()),
    PerBatch(PositiveBound(MovingAverage(QuantileMargin(), decay=0.7))),
    MovingAverage(EasyShareMargin(), decay=0.5),
    CosineMargin(epochs=3),
    StepMargin(at=(1, 2)),
]


@pytest.mark.parametrize("policy", POLICIES, ids=name_of)
def test_a_resumed_run_is_the_same_bit_for_bit(policy: Any) -> None:
    torch.set_num_threads(1)
    run, data, whole = tiny_run(margin=policy), tiny_data(), Keep()
    fit(run, data, whole, device="cpu")
    assert len({(row["margin/epsilon"], row["margin/beta"]) for row in whole.rows[1:]}) > 1  # it moved
    for epoch in range(3):
        kept, rest = load(save(whole.states[epoch])), Keep()  # as the run folder keeps it
        fit(run, data, rest, resume=kept, device="cpu")
        assert [timeless(row) for row in rest.rows] == [timeless(row) for row in whole.rows[epoch + 1 :]]
        last, want = rest.states[-1], whole.states[-1]
        assert last.keys() == want.keys() and all(torch.equal(last[k], want[k]) for k in want)


def test_a_checkpoint_from_before_policies_remembered_is_still_read() -> None:
    run, data, whole = tiny_run(margin=AutoMargin()), tiny_data(), Keep()
    fit(run, data, whole, device="cpu")
    assert [k for k in whole.states[1] if k.startswith("margin/")] == ["margin/epsilon", "margin/beta"]
