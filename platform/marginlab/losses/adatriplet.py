"""AdaTriplet (Nguyen, Nguyen, Tiulpin; MICCAI 2022; arXiv 2205.02849), as its authors' code optimises it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import softplus

from marginlab.losses.pairs import LossTerms, Pairs, linear
from marginlab.losses.triplet import check_mining, hinge_sums, smooth_sums, triplet_sums
from marginlab.values import InputError, later, value

if TYPE_CHECKING:
    from marginlab.margins import Margin

PAIR = {
    "hinge": "sim_an - beta",
    "lse": "log(1 + exp(sim_an - beta)), the code's LogSumExpLoss",
}


@value
class AdaTriplet:
    """Triplet loss + lam * mean over active negative pairs of (sim_an - beta).

    Not the mean over triplets of the printed formula, but two independent means over different sets: the active triplets
    (see :class:`~marginlab.losses.Triplet`), and the unordered, unique negative pairs {a, n} with sim_an >= beta. The
    pairs come from all triplets, mined or not: one exists if a or n has a positive
    (:attr:`~marginlab.losses.Pairs.negative_pairs`). Under semihard mining the hardest triplets (gap <= 0) are
    therefore acted on by the second mean alone.

    Options that the authors' code has:

    - ``smooth``: softplus(sim_an - sim_ap + epsilon) for the hinge of the triplet term, mean over all mined triplets.
    - ``pair="lse"``: the mean of log(1 + exp(sim_an - beta)) over the same pairs. The released code forgets the softplus
      where there is but one pair; here one pair is a pair like others.
    - ``pull``: above 0, reads the slot beta_p and adds pull * mean over the unordered positive pairs with
      sim_ap <= beta_p of (beta_p - sim_ap), or of its softplus with "lse" (``automargin_mode: add-ap``). The released
      code then doubles the negative term wherever both sets have a pair, and drops the positive pairs of a batch that has
      no negative; here neither.
    """

    lam: float = 1.0
    mining: str = "semihard"
    smooth: bool = later(default=False)
    pair: str = later(default="hinge")
    pull: float = later(default=0.0)

    def check(self) -> None:
        check_mining("AdaTriplet", self.mining)
        if self.lam < 0:
            raise InputError(f"AdaTriplet.lam must be 0 or more, not {self.lam}: it would pull negatives together.")
        if self.pair not in PAIR:
            kinds = "; ".join(f"{k}: {v}" for k, v in PAIR.items())
            raise InputError(f"AdaTriplet.pair cannot be {self.pair!r}; choose one of {kinds}.")
        if self.pull < 0:
            raise InputError(f"AdaTriplet.pull must be 0 or more, not {self.pull}: it would push positives apart.")

    @property
    def slots(self) -> tuple[str, ...]:
        return ("epsilon", "beta", "beta_p") if self.pull else ("epsilon", "beta")

    def __call__(self, pairs: Pairs, margin: Margin) -> LossTerms:
        lse = self.pair == "lse"
        if self.smooth or lse:
            triplets = smooth_sums if self.smooth else triplet_sums
            sums = [triplets(pairs, margin.epsilon, self.mining), pair_sums(pairs, margin.beta, lse)]
        else:
            sums = [hinge_sums(pairs, margin.epsilon, self.mining, margin.beta)]
        if self.pull:
            sums.append(positive_sums(pairs, margin["beta_p"], lse))
        loss, active, excess, close, *pulled = pairs.total(torch.cat(sums)).unbind()
        triplet, pair = pairs.mean(loss, active), pairs.mean(excess, close)
        total = triplet + self.lam * pair
        parts = {"triplet": triplet.detach(), "pair": pair.detach()}
        share = {
            "triplet": pairs.mean(active.detach(), pairs.triplet_count),
            "pair": pairs.mean(close.detach(), pairs.negative_count),
        }
        if self.pull:
            short, far = pulled
            positive = pairs.mean(short, far)
            total = total + self.pull * positive
            parts["positive"] = positive.detach()
            share["positive"] = pairs.mean(far.detach(), pairs.positive_count)
        return LossTerms(total, parts, share)


def pair_sums(pairs: Pairs, beta: Tensor, soft: bool) -> Tensor:
    """Of the negative pairs this rank owns, float64 [2]: the sum of (sim - beta) where sim >= beta, and their number.

    ``soft``: log(1 + exp(sim - beta)) for (sim - beta), of the same pairs.
    """
    with torch.no_grad():
        weight, bound = torch.empty_like(pairs.sim), beta.to(pairs.sim.dtype)
        sums = pairs.sim.new_zeros((len(pairs.sim), 2), dtype=torch.float64)
        for rows in pairs.chunks():
            close = pairs.close(rows, pairs.negatives(rows), bound, out=weight[rows])
            term = softplus(pairs.sim[rows] - bound) if soft else pairs.sim[rows]
            sums[rows] = torch.stack([(term * close).sum(1), close.sum(1)], 1).double()
            if soft:
                close *= (pairs.sim[rows] - bound).sigmoid_()
        total, count = sums.sum(0).unbind()
        total = total if soft else total - beta * count
    return linear(pairs.sim, torch.stack([total, count]), weight)


def positive_sums(pairs: Pairs, beta_p: Tensor, soft: bool) -> Tensor:
    """Of the positive pairs this rank owns, float64 [2]: the sum of (beta_p - sim) where sim <= beta_p, and their number."""
    sim, column, real = pairs.positives()
    own = torch.arange(pairs.start, pairs.start + len(sim), device=sim.device)
    short = beta_p - sim
    far = real & (own[:, None] < column) & (short >= 0)
    total = torch.where(far, softplus(short) if soft else short, 0).double().sum()
    return torch.stack([total, far.sum().double()])
