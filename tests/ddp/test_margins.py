"""Two ranks with half the batch each have the margins of one process with the whole, after every batch."""

from __future__ import annotations

import math

import margin_cases
import pytest
from ranks import Ranks

from marginlab.margins import FixedMargin, NoMargin


def test_every_policy_on_every_batch(ranks: Ranks) -> None:
    one = margin_cases.margins()
    zero, first = ranks.run(margin_cases.margins)
    for policy, numbers in one.items():
        assert zero[policy] == pytest.approx(numbers, rel=1e-11, abs=1e-12, nan_ok=True), policy
        assert first[policy] == pytest.approx(zero[policy], rel=0, abs=0, nan_ok=True), policy  # to the bit
    for policy in margin_cases.POLICIES_TRIED:  # so that the equality is not one of margins that never moved
        if not isinstance(policy, (NoMargin, FixedMargin)):
            assert len({v for v in one[str(policy)] if math.isfinite(v)}) > 3, policy
