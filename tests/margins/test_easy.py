from __future__ import annotations

import brute_force
import planted
import pytest
import torch

from marginlab.losses import Pairs
from marginlab.margins import EasyShareMargin, Margin, observe
from marginlab.margins.easy import easy


@pytest.mark.parametrize("name", brute_force.LABELS)
@pytest.mark.parametrize("epsilon", [0.0, 0.25, 1.2])
def test_easy_triplets_are_those_of_the_loops(name: str, epsilon: float) -> None:
    x, y = brute_force.batch(name)
    sim = brute_force.similarities(x.detach())
    want = sum(float(sim[a, p] - sim[a, n]) > epsilon for a, p, n in brute_force.triplets(y))
    assert easy(Pairs.of(x.detach(), y), torch.tensor(epsilon, dtype=torch.float64)).item() == want


def test_epsilon_stays_within_its_ends() -> None:
    policy = EasyShareMargin(0.5, rate=1, epsilon=0.5, lowest=0.375, highest=0.625)
    up = observe(policy, planted.pairs("R"), policy.start())  # all gaps are above 0.5
    assert policy.after_epoch(policy.start(), up).epsilon.item() == 0.625
    hard = Margin.of(1.5, 0.0)
    down = observe(policy, planted.pairs("P"), hard)  # none is above 1.5
    assert policy.after_epoch(policy.start(), down).epsilon.item() == 0.375


def test_an_epoch_without_a_triplet_leaves_epsilon() -> None:
    policy = EasyShareMargin(beta=None)
    alone = Pairs.of(torch.eye(3), torch.tensor([0, 1, 2]))
    after = policy.after_epoch(policy.start(), observe(policy, alone, policy.start()))
    assert after.epsilon.item() == 0.25 and after.beta.isnan()
