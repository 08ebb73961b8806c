from __future__ import annotations

import brute_force
import pytest
import torch

from marginlab.losses import Pairs
from marginlab.margins import AutoMargin, FixedMargin, Margin, Statistics

PLANE = {0: (1.0, 0.0), 1: (0.8, 0.6), 2: (0.6, 0.8), 3: (0.0, 1.0)}  # unit vectors whose products are easy


def statistics(*images: tuple[int, int]) -> Statistics:
    """Of one batch of (vector of PLANE, label)."""
    x = torch.tensor([PLANE[v] for v, _ in images], dtype=torch.float64)
    return Statistics.of(Pairs.of(x, torch.tensor([label for _, label in images])))


def numbers(margin: Margin) -> tuple[float, float]:
    return margin.epsilon.item(), margin.beta.item()


@pytest.mark.parametrize("name", brute_force.LABELS)
def test_statistics_are_those_of_the_loops(name: str) -> None:
    for seed in range(3):
        x, y = brute_force.batch(name, seed)
        sim, n = brute_force.similarities(x.detach()), range(len(y))
        gaps = [sim[a, p] - sim[a, q] for a, p, q in brute_force.triplets(y)]
        negatives = [sim[i, j] for i, j in brute_force.negative_pairs(y)]
        positives = [sim[i, j] for i in n for j in n if i < j and y[i] == y[j]]
        got = Statistics.of(Pairs.of(x, y))
        want = [[float(sum(terms)), len(terms)] for terms in (gaps, negatives, positives)]
        torch.testing.assert_close(got.sums, torch.tensor(want, dtype=torch.float64), atol=1e-9, rtol=0)


def test_statistics_add_up_over_batches() -> None:
    total, gaps, count = Statistics(), 0.0, 0
    for seed, name in enumerate(brute_force.LABELS):
        x, y = brute_force.batch(name, seed)
        sim = brute_force.similarities(x.detach())
        terms = [float(sim[a, p] - sim[a, n]) for a, p, n in brute_force.triplets(y)]
        gaps, count = gaps + sum(terms), count + len(terms)
        total.add(Statistics.of(Pairs.of(x, y)))
    assert total.gap_mean.item() == pytest.approx(gaps / count, abs=1e-12)
    assert total.sums.dtype == torch.float64
    assert Statistics().neg_mean.isnan()


def test_automargin_over_three_epochs_by_hand() -> None:
    policy = AutoMargin(k_delta=2, k_an=4, epsilon=0.3, beta=0.1)
    margin = policy.start()
    assert numbers(margin) == (0.3, 0.1)

    # Epoch 0, one batch. sim_01 = 0.8 (positive), sim_03 = 0, sim_13 = 0.6. Gaps 0.8 and 0.2, mean 0.5. Negatives 0.3.
    margin = policy.after_epoch(margin, statistics((0, 0), (1, 0), (3, 1)))
    assert numbers(margin) == pytest.approx((0.5 / 2, 1 - 0.7 / 4), abs=1e-12)

    # Epoch 1, two batches: the one above (two gaps, sum 1; two negatives, sum 0.6), and 0, 3 of a class against 1:
    # sim_03 = 0, sim_01 = 0.8, sim_31 = 0.6: gaps -0.8 and -0.6, sum -1.4. Mean gap -0.4 / 4 = -0.1: epsilon is cut at 0.
    # Negatives (0.6 + 1.4) / 4 = 0.5.
    epoch = statistics((0, 0), (1, 0), (3, 1)).add(statistics((0, 7), (1, 9), (3, 7)))
    margin = policy.after_epoch(margin, epoch)
    assert numbers(margin) == pytest.approx((0.0, 1 - 0.5 / 4), abs=1e-12)

    # Epoch 2: 0, 0 of one class, 2 and 3 alone: sim_02 = 0.6, sim_03 = 0, gaps 0.4 and 1 twice, mean 0.7. Negative pairs:
    # 0.6 and 0 twice, mean 0.3; {2, 3}, with 0.8, is no pair because neither has a positive.
    margin = policy.after_epoch(margin, statistics((0, 0), (0, 0), (2, 1), (3, 2)))
    assert numbers(margin) == pytest.approx((0.7 / 2, 1 - 0.7 / 4), abs=1e-12)


def test_an_epoch_without_a_triplet_leaves_the_margin() -> None:
    policy = AutoMargin()
    margin = Margin.of(0.125, 0.5)
    for epoch in (Statistics(), statistics((0, 0), (1, 0)), statistics((0, 0), (1, 1))):
        assert numbers(policy.after_epoch(margin, epoch)) == (0.125, 0.5)


def test_a_fixed_margin_stays() -> None:
    policy = FixedMargin(0.4)
    assert numbers(policy.after_epoch(policy.start(), statistics((0, 0), (1, 0), (3, 1)))) == (0.4, 0.0)
    assert FixedMargin(beta=None).start().beta.isnan()
