from __future__ import annotations

from contextlib import nullcontext

import brute_force
import pytest
import torch
from every import LOSSES

from marginlab.losses import AdaTriplet, Pairs
from marginlab.losses.pairs import linear
from marginlab.margins import AutoMargin, Margin, Statistics


@pytest.mark.parametrize("name", brute_force.LABELS)
def test_masks_slots_and_counts_are_those_of_the_loops(name: str) -> None:
    x, y = brute_force.batch(name)
    pairs, n = Pairs.of(x, y), range(len(y))
    torch.testing.assert_close(pairs.sim, brute_force.similarities(x))
    assert pairs.positive.tolist() == [[bool(y[i] == y[j]) and i != j for j in n] for i in n]
    assert pairs.negative.tolist() == [[bool(y[i] != y[j]) for j in n] for i in n]
    assert pairs.first.tolist() == [[i < j for j in n] for i in n]
    assert [tuple(ij) for ij in pairs.negative_pairs.nonzero().tolist()] == brute_force.negative_pairs(y)
    assert pairs.triplet_count == len(brute_force.triplets(y))
    assert pairs.negative_count == len(brute_force.negative_pairs(y))
    assert pairs.positive_count == pairs.positive_pairs.sum() == sum(bool(y[i] == y[j]) for i in n for j in n if i < j)
    positives = pairs.positives()
    for i in n:
        assert positives.column[i][positives.real[i]].tolist() == [j for j in n if j != i and y[i] == y[j]]
        assert torch.equal(positives.sim[i], pairs.sim[i, positives.column[i]])


@pytest.mark.parametrize("name", brute_force.LABELS)
@pytest.mark.parametrize("slots", [None, 9])
def test_negatives_and_close_pairs_of_some_rows_are_those_of_the_masks(name: str, slots: int | None) -> None:
    x, y = brute_force.batch(name)
    pairs, beta = Pairs.of(x, y, slots), torch.tensor(0.1, dtype=torch.float64)
    for rows in (slice(0, len(y)), slice(1, 4)):
        an = pairs.negatives(rows)
        assert torch.equal(an, torch.where(pairs.negative, pairs.sim, -float("inf"))[rows])
        close = pairs.close(rows, an, beta, torch.empty_like(an))
        assert torch.equal(close, (pairs.negative_pairs & (pairs.sim >= beta))[rows].double())
    assert pairs.some_alone == bool((pairs.classes.size == 1).any())


def test_every_weight_is_a_gradient_of_the_first_of_its_sums() -> None:
    sim = torch.zeros(2, 3, dtype=torch.float64, requires_grad=True)
    one, other = torch.arange(6.0).view(2, 3).double(), torch.eye(3, dtype=torch.float64)[:2]
    sums = linear(sim, torch.tensor([5.0, 6, 7, 8], dtype=torch.float64), one, other)
    assert sums.tolist() == [5, 6, 7, 8]
    (sums * torch.tensor([2.0, 100, 3, 100])).sum().backward()
    assert sim.grad is not None
    assert torch.equal(sim.grad, 2 * one + 3 * other)


def test_more_slots_than_needed_change_nothing() -> None:
    x, y = brute_force.batch("unequal classes")
    margin = Margin.of(0.5, 0.1)
    assert AdaTriplet()(Pairs.of(x, y), margin).total == AdaTriplet()(Pairs.of(x, y, max_positives=9), margin).total


def test_too_few_slots_are_refused() -> None:
    x, y = brute_force.batch("unequal classes")
    with pytest.raises(ValueError, match="max_positives is 3, but an image of this batch has 4 positives"):
        Pairs.of(x, y, max_positives=3)


def test_half_precision_and_autocast_end_at_the_similarities() -> None:
    x, y = brute_force.batch("P x K")
    half = x.detach().bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        pairs = Pairs.of(half, y)
        terms = AdaTriplet()(pairs, Margin.of(0.25, 0.1))
    assert pairs.sim.dtype == torch.float32
    torch.testing.assert_close(pairs.sim.double(), brute_force.similarities(half.double()), atol=1e-6, rtol=0)
    assert terms.total.dtype == torch.float64


def test_float32_is_close_to_float64() -> None:
    x, y = brute_force.batch("P x K", seed=3)
    margin = Margin.of(0.4, 0.1)
    want, got = (AdaTriplet()(Pairs.of(v, y), margin).total for v in (x, x.detach().float()))
    assert abs(want - got) < 1e-6


def test_no_step_waits_for_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    # A meta tensor has no values: .item(), nonzero() and boolean indexing raise on it, as they would wait on a GPU.
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # knows no meta device
    x, y = torch.empty(12, 6, device="meta", requires_grad=True), torch.empty(12, dtype=torch.int64, device="meta")
    pairs = Pairs.of(x, y, max_positives=3)
    margin = Margin.of(0.25, 0.0, beta_p=0.5)
    for loss in LOSSES:
        loss(pairs, margin).total.backward(retain_graph=True)
    assert x.grad is not None
    AutoMargin().after_epoch(margin, Statistics().add(Statistics.of(pairs)))
    with pytest.raises(RuntimeError, match="item"):  # the one read that is documented to wait
        Pairs.of(x, y)
