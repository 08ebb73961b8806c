"""The triplet loss on the hypersphere, with the mining of the AdaTriplet paper's code."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import softplus

from marginlab.losses.pairs import LossTerms, Pairs, linear
from marginlab.values import InputError, value

if TYPE_CHECKING:
    from marginlab.margins import Margin

MINING = {
    "semihard": "0 < gap <= epsilon",
    "all": "gap <= epsilon",
    "hard": "gap <= 0",
    "easy": "gap > epsilon (their loss is 0: nothing is learnt from them)",
}


# Of a block of triplets, ap [r, 1] and an [r, B]: what is summed over them (the loss first), and the loss's slopes by ap
# and by an; all [r, B], and 0 where ap is inf or an is -inf, for there is no triplet.
Cells = Callable[[Tensor, Tensor], tuple[list[Tensor], Tensor, Tensor]]


@value
class Triplet:
    """mean over active triplets of (sim_an - sim_ap + epsilon).

    A triplet (a, p, n) is ordered; its gap is sim_ap - sim_an. Active are the mined triplets whose loss is above 0, as
    pytorch-metric-learning's TripletMarginMiner with ThresholdReducer(low=0) has it; without any, the loss is 0.
    """

    mining: str = "semihard"
    slots: ClassVar[tuple[str, ...]] = ("epsilon",)

    def check(self) -> None:
        check_mining("Triplet", self.mining)

    def __call__(self, pairs: Pairs, margin: Margin) -> LossTerms:
        loss, active = pairs.total(triplet_sums(pairs, margin.epsilon, self.mining)).unbind()
        mean = pairs.mean(loss, active)
        share = pairs.mean(active.detach(), pairs.triplet_count)
        return LossTerms(mean, {"triplet": mean.detach()}, {"triplet": share})


def check_mining(owner: str, mining: str) -> None:
    if mining not in MINING:
        kinds = "; ".join(f"{k}: {v}" for k, v in MINING.items())
        raise InputError(f"{owner}.mining cannot be {mining!r}; choose one of {kinds}.")


def triplet_sums(pairs: Pairs, epsilon: Tensor, mining: str) -> Tensor:
    """Of this rank's anchors, float64 [2]: the summed loss of the active triplets, and their number.

    The loss is linear between mining decisions: sum over active (a, p, n) of (sim_an - sim_ap + epsilon) equals
    sum_ij weight_ij sim_ij + epsilon * number, where weight_an counts the active triplets of the pair {a, n} and
    weight_ap is minus that of {a, p}. The weights are constants, so the gradient is exact, and no tensor is larger
    than [b, B] though there are up to b * M * B triplets.
    """
    return hinge_sums(pairs, epsilon, mining, None)


def hinge_sums(pairs: Pairs, epsilon: Tensor, mining: str, beta: Tensor | None) -> Tensor:
    """:func:`triplet_sums`, and behind them, unless ``beta`` is None, the summed excess over it of the negative pairs
    that this rank owns and their number: float64 [2] or [4] from one pass over sim, each part of it while it is in cache.
    """
    with torch.no_grad():
        positives = pairs.positives()
        ap = positives.sim.masked_fill(~positives.real, float("inf"))  # padding is not active: its gap is infinite
        bounds = [x.to(ap.dtype) for x in (epsilon, beta) if x is not None]
        weights = [torch.empty_like(pairs.sim) for _ in bounds]
        number, sums = torch.empty_like(ap), ap.new_empty(3, len(ap))
        for rows in pairs.chunks():
            an, weight, part = pairs.negatives(rows), weights[0][rows], sums[:, rows]
            _count_active(ap[rows], an, bounds[0], mining, weight, number[rows])
            weight.scatter_add_(1, positives.column[rows], -number[rows])  # padding adds 0
            torch.sum(weight * pairs.sim[rows], 1, out=part[0])
            if beta is not None:
                close = pairs.close(rows, an, bounds[1], weights[1][rows])
                torch.sum(torch.mul(close, pairs.sim[rows], out=an), 1, out=part[1])
                torch.sum(close, 1, out=part[2])
        linear_part, near, close = sums.double().sum(1).unbind()
        count = number.double().sum()
        out = [linear_part + epsilon * count, count]
        if beta is not None:
            out += [near - beta * close, close]
    return linear(pairs.sim, torch.stack(out), *weights)


def _count_active(ap: Tensor, an: Tensor, epsilon: Tensor, mining: str, weight: Tensor, number: Tensor) -> None:
    """Count the active triplets of each negative into weight [r, B] and of each positive into number [r, M].

    ap: [r, M] similarities of the positives, an: [r, B] of the negatives. Comparisons write floats, not bools: torch has
    vectorised kernels for the former alone, and counts up to 2**24 are exact.
    """
    slots = 0 if mining == "easy" else ap.shape[1]
    if slots == 0:
        weight.zero_()
        number.zero_()
    gap, room = torch.empty_like(an), torch.empty_like(an)
    for slot in range(slots):
        active = room if slot else weight
        torch.sub(ap[:, slot, None], an, out=gap)
        torch.lt(gap, epsilon, out=active)  # mined includes gap == epsilon, but a loss of 0 is not averaged over
        if mining == "semihard":
            active *= gap.gt_(0)
        elif mining == "hard":
            active *= gap.le_(0)
        torch.sum(active, 1, out=number[:, slot])
        if slot:
            weight += active


def smooth_sums(pairs: Pairs, epsilon: Tensor, mining: str) -> Tensor:
    """As :func:`triplet_sums`, with softplus(sim_an - sim_ap + epsilon) for its hinge: every mined triplet is active."""

    def cells(ap: Tensor, an: Tensor) -> tuple[list[Tensor], Tensor, Tensor]:
        gap = ap - an
        if mining == "easy":
            mined = (gap > epsilon) & (gap < float("inf"))
        else:
            mined = gap <= epsilon
            if mining != "all":
                mined &= gap > 0 if mining == "semihard" else gap <= 0
        short = epsilon - gap
        slope = short.sigmoid() * mined  # a product, not torch.where: a gap that is not a number must not be hidden
        return [softplus(short) * mined, mined], -slope, slope

    return over_triplets(pairs, cells, 2)


def over_triplets(pairs: Pairs, cells: Cells, number: int) -> Tensor:
    """Sums over the triplets of this rank's anchors, float64 [number]; the first, the loss, carries the gradient.

    For losses that are not linear in the gap. There is one pass over [b, B] for every positive that an anchor may have,
    and no tensor is larger than that.
    """
    with torch.no_grad():
        positives = pairs.positives()
        every_ap = positives.sim.masked_fill(~positives.real, float("inf"))
        weight, by_positive = torch.zeros_like(pairs.sim), torch.zeros_like(positives.sim)
        sums = pairs.sim.new_zeros((len(pairs.sim), number), dtype=torch.float64)
        for rows in pairs.chunks():
            an = pairs.negatives(rows)
            for slot in range(every_ap.shape[1]):
                summed, by_ap, by_an = cells(every_ap[rows, slot, None], an)
                sums[rows] += torch.stack([x.sum(1).double() for x in summed], 1)
                weight[rows] += by_an
                by_positive[rows, slot] = by_ap.sum(1)
        weight.scatter_add_(1, positives.column, by_positive)  # padding adds 0
    return linear(pairs.sim, sums.sum(0), weight)
