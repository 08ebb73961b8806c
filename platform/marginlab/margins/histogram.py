"""Quantiles of similarities and gaps in constant memory: histograms that add up over batches and ranks.

A histogram is a float64 vector of counts over the grid of multiples of ``WIDTH``; a number is counted at the grid point that
is nearest to it, so a quantile read from it is at most half of ``WIDTH`` (0.0005 of similarity, and the rounding of the
similarities themselves) away from the exact one, whatever the distribution, and exact where the numbers lie on the grid.
"""

from __future__ import annotations

import torch
from torch import Tensor

from marginlab.losses.pairs import Pairs

WIDTH = 2.0**-10  # of a bin; a power of two, so that -1, 0, 1 and the bins of float32 numbers are exact


def bins(reach: int) -> int:
    """How many bins cover -reach..reach: 2,049 for similarities (reach 1), 4,097 for gaps (reach 2)."""
    return 2 * round(reach / WIDTH) + 1


def count(x: Tensor, reach: int) -> Tensor:
    """The histogram of x, float64 [bins]. What is infinite or no number is left out; nothing waits for the device."""
    size = bins(reach)
    # Left-out elements go to one bin too many. A cosine that rounding made larger than 1 is still nearest to 1.
    place = (x / WIDTH).round_().add_(size // 2).nan_to_num_(size, size, size).clamp_(0, size).long().flatten()
    if place.device.type == "cpu":
        counts = torch.bincount(place, minlength=size + 1)
    else:  # bincount would make the host wait for the device
        counts = torch.zeros(size + 1, dtype=torch.int64, device=place.device)
        counts.scatter_add_(0, place, torch.ones_like(place))
    return counts[:size].double()


def quantile(counts: Tensor, q: float) -> Tensor:
    """The q-quantile (0 < q < 1), 0-d float64, on the device; meaningless where nothing was counted.

    numpy's ``method="averaged_inverted_cdf"``: the smallest number with a share q at or below it, and where exactly a share
    q lies at or below it, the middle between it and the next; of q = 0.5 the usual median. A definition by shares holds
    for counts with weights, as a moving average has them.
    """
    below = counts.cumsum(0)
    wanted = (q * below[-1]).reshape(1)
    ends = torch.cat([torch.searchsorted(below, wanted), torch.searchsorted(below, wanted, right=True)])
    return (ends.clamp(max=len(counts) - 1) - len(counts) // 2).double().mean() * WIDTH


def gaps(pairs: Pairs) -> Tensor:
    """The histogram of sim_ap - sim_an over the ordered triplets of this rank's anchors, float64 [bins(2)]. O(b M B) time."""
    positives = pairs.positives()
    ap = positives.sim.masked_fill(~positives.real, float("inf"))
    counts = torch.zeros(bins(2), dtype=torch.float64, device=ap.device)
    for rows in pairs.chunks():
        an = pairs.sim[rows].masked_fill(~pairs.negative[rows], -float("inf"))
        for slot in range(ap.shape[1]):
            counts += count(ap[rows, slot, None] - an, 2)
    return counts


def negatives(pairs: Pairs) -> Tensor:
    """The histogram of sim over the unordered negative pairs that this rank owns, float64 [bins(1)]."""
    counts = torch.zeros(bins(1), dtype=torch.float64, device=pairs.sim.device)
    for rows in pairs.chunks():
        counts += count(pairs.sim[rows].masked_fill(~pairs.negative_pairs[rows], float("inf")), 1)
    return counts
