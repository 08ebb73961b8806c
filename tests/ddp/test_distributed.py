from __future__ import annotations

import loss_cases
import torch
from ranks import Ranks

from marginlab import distributed


def test_collectives_by_hand(ranks: Ranks) -> None:
    zero, one = ranks.run(loss_cases.collectives)
    for rank, got in enumerate((zero, one)):
        assert got["gathered"] == [[1.0, 2.0], [2.0, 2.0]]
        assert got["gathered labels"] == [0, 7, 1, 7]
        # Row r is weighted 10**r by rank 0 and 2 * 10**r by rank 1: its owner gets the sum.
        assert got["gather gradient"] == [[3.0 * 10**rank] * 2]
        assert got["total"] == ([3.0], "torch.float64")
        assert got["total gradient"] == [2 * 3.0 * 2]  # d total**2 = 2 total, times the world size
        assert got["flag"] == (True, False)
        assert got["object"] == {"from": 0}


def test_one_process_needs_no_process_group() -> None:
    x = torch.ones(2, 3)
    assert (distributed.rank(), distributed.world(), distributed.is_distributed()) == (0, 1, False)
    assert distributed.gather(x) is x
    assert torch.equal(distributed.total(x), x.double())
    assert distributed.broadcast_flag(True) is True
    assert distributed.broadcast_object("x") == "x"
