from __future__ import annotations

import brute_force
import numpy as np
import pytest
import torch
from torch import Tensor

from marginlab.losses import Pairs
from marginlab.margins.histogram import WIDTH, bins, count, gaps, negatives, quantile

QUANTILES = (0.001, 0.1, 0.25, 0.5, 0.75, 0.9, 0.999)
W = WIDTH


def distributions() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    edges = (np.arange(-1023, 1023) + 0.5) * W
    return {
        "one number": np.array([0.123]),
        "all -1": np.full(100, -1.0),
        "all 1": np.full(100, 1.0),
        "all equal, between bins": np.full(77, 0.5 + W / 2),
        "both extremes": np.array([-1.0] * 50 + [1.0] * 50),
        "one against many": np.array([-1.0] + [1.0] * 999),
        "two near numbers": np.array([0.3, 0.3 + W / 3] * 9),
        "bins' edges": edges,
        "just beside the edges": np.nextafter(edges, 2 * rng.integers(0, 2, len(edges)) - 1.0),
        "uniform": rng.uniform(-1, 1, 4096),
        "narrow": rng.normal(0.98, 1e-4, 1001).clip(-1, 1),
        "two heaps and nothing between": np.concatenate([rng.normal(s, 1e-3, 500) for s in (-0.7, 0.6)]),
        "heavy tails": np.tanh(rng.standard_cauchy(999)),
    }


@pytest.mark.parametrize("reach", [1, 2])
@pytest.mark.parametrize("name", distributions())
def test_quantiles_are_numpys_within_half_a_bin(name: str, reach: int) -> None:
    x = distributions()[name] * reach
    counts = count(torch.from_numpy(x), reach)
    assert counts.dtype == torch.float64 and len(counts) == bins(reach) and counts.sum() == len(x)
    for q in QUANTILES:
        want = np.quantile(x, q, method="averaged_inverted_cdf")
        assert abs(quantile(counts, q).item() - want) <= W / 2 + 1e-12, q
    assert abs(quantile(counts, 0.5).item() - np.median(x)) <= W / 2 + 1e-12


def test_numbers_on_the_grid_are_exact() -> None:
    x = np.random.default_rng(1).integers(-2048, 2049, 1000) * W
    for dtype in (torch.float32, torch.float64):
        for q in QUANTILES:
            want = np.quantile(x, q, method="averaged_inverted_cdf")
            assert quantile(count(torch.from_numpy(x).to(dtype), 2), q).item() == want


def test_merged_histograms_are_the_histogram_of_all() -> None:
    parts = list(distributions().values())
    whole = count(torch.from_numpy(np.concatenate(parts)), 1)
    merged = torch.stack([count(torch.from_numpy(p), 1) for p in parts]).sum(0)
    assert torch.equal(whole, merged)
    for q in QUANTILES:
        assert (
            abs(quantile(merged, q).item() - np.quantile(np.concatenate(parts), q, method="averaged_inverted_cdf")) <= W
        )


def test_of_weighted_counts_shares_decide() -> None:
    counts = count(torch.tensor([0.0] * 3 + [0.5] * 1), 1)
    for weight in (1e-9, 0.3, 1.0, 1e9):
        assert [quantile(weight * counts, q).item() for q in (0.5, 0.75, 0.8)] == [0, 0.25, 0.5]


def test_what_is_no_number_is_not_counted_and_rounding_beyond_one_is() -> None:
    x = torch.tensor([float("nan"), float("inf"), -1 - 1e-7, 1 + 1e-7, 0.25])
    counts = count(x, 1)
    assert counts.sum() == 3 and [counts[i].item() for i in (0, 2048, 1024 + 256)] == [1, 1, 1]


def test_a_device_that_is_not_waited_for_counts_the_same_way() -> None:
    """The accelerator's path, on a device without data: whatever asked for a value would fail."""
    counts = count(torch.zeros(5, 7, device="meta"), 2)
    assert counts.shape == (bins(2),) and counts.dtype == torch.float64
    assert quantile(counts, 0.25).shape == ()


def of_loops(terms: list[Tensor], reach: int) -> Tensor:
    place = [round(float(x) / W) + reach * 1024 for x in terms]  # Python rounds half to even, as torch does
    return torch.bincount(torch.tensor(place, dtype=torch.int64), minlength=bins(reach)).double()


@pytest.mark.parametrize("name", brute_force.LABELS)
def test_gaps_and_negatives_are_those_of_the_loops(name: str) -> None:
    for seed in range(2):
        x, y = brute_force.batch(name, seed)
        sim = brute_force.similarities(x.detach())
        pairs = Pairs.of(x.detach(), y)
        assert torch.equal(gaps(pairs), of_loops([sim[a, p] - sim[a, n] for a, p, n in brute_force.triplets(y)], 2))
        assert torch.equal(negatives(pairs), of_loops([sim[i, j] for i, j in brute_force.negative_pairs(y)], 1))


def test_large_batches_are_counted_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = brute_force.batch("unequal classes", 3)
    pairs = Pairs.of(x.detach(), y)
    whole = gaps(pairs), negatives(pairs)
    monkeypatch.setattr(Pairs, "chunks", lambda self: (slice(i, i + 3) for i in range(0, len(self.sim), 3)))
    assert torch.equal(gaps(pairs), whole[0]) and torch.equal(negatives(pairs), whole[1])
