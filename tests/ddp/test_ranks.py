from __future__ import annotations

import loss_cases
import pytest
from ranks import Ranks


def test_a_failing_rank_fails_the_case_and_the_next_case_runs(ranks: Ranks) -> None:
    with pytest.raises(AssertionError, match=r"rank 1: (?s:.)*the cat sat on the switch"):
        ranks.run(loss_cases.fails_on_rank_1)
    assert [numbers["rank, world"] for numbers in ranks.run(loss_cases.collectives)] == [(0, 2, True), (1, 2, True)]
