"""Two ranks with half the batch each give the numbers of one process with the whole: value, gradient, statistics, margins."""

from __future__ import annotations

from typing import Any

import loss_cases
import pytest
from ranks import Ranks


def assert_same(one: dict[str, Any], ranks: list[dict[str, Any]]) -> None:
    for got in ranks:
        assert got.keys() == one.keys()
        for case, numbers in one.items():
            assert got[case] == pytest.approx(numbers, rel=1e-11, abs=1e-12), case


def test_every_loss_on_every_batch(ranks: Ranks) -> None:
    one = loss_cases.single_steps()
    assert_same(one, ranks.run(loss_cases.single_steps))
    acted = {  # so that the equality is not one of zeros
        str(loss)
        for loss in loss_cases.LOSSES
        for case, numbers in one.items()
        if str(loss) in case and any(numbers[f"gradient {j}"] for j in range(12))
    }
    assert acted == {str(loss) for loss in loss_cases.LOSSES} - {"Triplet(mining='easy')"}


def test_training_with_automargin(ranks: Ranks) -> None:
    one = loss_cases.training()
    assert_same(one, ranks.run(loss_cases.training))
    assert len({numbers["epsilon 2"] for numbers in one.values()}) > 3


def test_a_rank_without_an_active_triplet_was_among_them(ranks: Ranks) -> None:
    on_rank_0, on_rank_1 = ranks.run(loss_cases.active_on_this_rank, "no active triplet on rank 0")
    assert on_rank_0 == 0
    assert on_rank_1 > 0
    assert ranks.run(loss_cases.active_on_this_rank, "nobody of rank 1 has a positive")[1] == 0
