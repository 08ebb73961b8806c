"""AdaTriplet (Nguyen, Nguyen, Tiulpin; MICCAI 2022; arXiv 2205.02849), as its authors' code optimises it."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from marginlab.losses.pairs import LossTerms, Pairs, linear
from marginlab.losses.triplet import check_mining, triplet_sums
from marginlab.values import InputError, value

if TYPE_CHECKING:
    from marginlab.margins import Margin


@value
class AdaTriplet:
    """Triplet loss + lam * mean over active negative pairs of (sim_an - beta).

    Not the mean over triplets of the printed formula, but two independent means over different sets: the active triplets
    (see :class:`~marginlab.losses.Triplet`), and the unordered, unique negative pairs {a, n} with sim_an >= beta. The
    pairs come from all triplets, mined or not: one exists if a or n has a positive
    (:attr:`~marginlab.losses.Pairs.negative_pairs`). Under semihard mining the hardest triplets (gap <= 0) are
    therefore acted on by the second mean alone.
    """

    lam: float = 1.0
    mining: str = "semihard"
    slots: ClassVar[tuple[str, ...]] = ("epsilon", "beta")

    def check(self) -> None:
        check_mining("AdaTriplet", self.mining)
        if self.lam < 0:
            raise InputError(f"AdaTriplet.lam must be 0 or more, not {self.lam}: it would pull negatives together.")

    def __call__(self, pairs: Pairs, margin: Margin) -> LossTerms:
        sums = torch.cat([triplet_sums(pairs, margin.epsilon, self.mining), pair_sums(pairs, margin.beta)])
        loss, active, excess, close = pairs.total(sums).unbind()
        triplet, pair = pairs.mean(loss, active), pairs.mean(excess, close)
        return LossTerms(
            total=triplet + self.lam * pair,
            parts={"triplet": triplet.detach(), "pair": pair.detach()},
            active={
                "triplet": pairs.mean(active.detach(), pairs.triplet_count),
                "pair": pairs.mean(close.detach(), pairs.negative_count),
            },
        )


def pair_sums(pairs: Pairs, beta: Tensor) -> Tensor:
    """Of the negative pairs this rank owns, float64 [2]: the sum of (sim - beta) where sim >= beta, and their number."""
    with torch.no_grad():
        close = torch.empty_like(pairs.negative)
        rows_sum = torch.zeros_like(pairs.sim[:, 0], dtype=torch.float64)
        for rows in pairs.chunks():
            sim = pairs.sim[rows]
            close[rows] = pairs.negative_pairs[rows] & (sim >= beta)
            rows_sum[rows] = torch.where(close[rows], sim, 0).sum(1).double()
        count = close.sum().double()
        excess = rows_sum.sum() - beta * count
    return torch.stack([linear(pairs.sim, close, excess), count])
