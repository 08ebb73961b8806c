"""Losses of the library: two ranks with half the batch each give the numbers of one process with the whole."""

from __future__ import annotations

from typing import Any

import library_cases
import pytest
from ranks import Ranks

from marginlab.losses import CrossBatchMemory, ProxyAnchor


def test_every_loss_on_every_batch(ranks: Ranks) -> None:
    one = library_cases.every_loss()
    for got in ranks.run(library_cases.every_loss):
        assert got.keys() == one.keys()
        for case, numbers in one.items():
            close = 1e-6 if case.startswith("SmoothAP") else 1e-10  # the library's SmoothAP adds up in float32
            assert got[case] == pytest.approx(numbers, rel=close, abs=close), case
    for loss in library_cases.LOSSES:  # so that the equality is not one of zeros
        mine = [said for case, said in one.items() if case.startswith(f"{loss}, ")]
        assert any(n for said in mine for k, n in said.items() if k.startswith("gradient")), loss


def test_every_rank_gets_the_gradients_of_the_first(ranks: Ranks) -> None:
    assert ranks.run(library_cases.broadcast_gradients) == [[[1.0, 1.0], None]] * 2
    assert library_cases.broadcast_gradients() == [[1.0, 1.0], None]


@pytest.mark.parametrize("loss", [ProxyAnchor(), CrossBatchMemory(size=80)], ids=lambda v: type(v).__name__)
def test_ranks_carry_the_same_through_the_training_loop(ranks: Ranks, loss: Any) -> None:
    one, means = library_cases.carried(loss)
    (zero, first_means), (other, other_means) = ranks.run(library_cases.carried, loss)
    assert zero == other and first_means == other_means  # to the bit
    assert first_means == pytest.approx(means, rel=1e-3)
    for name, numbers in one.items():
        assert zero[name] == pytest.approx(numbers, rel=1e-2, abs=1e-2), name
