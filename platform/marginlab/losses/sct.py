"""SCT, the selectively contrastive triplet loss (Xuan, Stylianou, Liu, Pless; ECCV 2020; arXiv 2007.12749)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import softplus

from marginlab.losses.pairs import LossTerms, Pairs
from marginlab.losses.triplet import over_triplets
from marginlab.values import InputError, value

if TYPE_CHECKING:
    from marginlab.margins import Margin

MINING = {
    "hardest": "one triplet for each anchor, its nearest positive and its nearest negative",
    "all": "all triplets",
}


@value
class SCT:
    """mean over triplets of: lam * sim_an if sim_an > sim_ap, else -log(e^(sim_ap / T) / (e^(sim_ap / T) + e^(sim_an / T))).

    Of a hard triplet only the negative pair is acted on: pulling at its positive as well would entangle the two
    gradients, which is why plain triplet losses collapse on the hardest negatives. Of any other triplet the second
    branch, log(1 + exp((sim_an - sim_ap) / T)), acts on both.

    Triplets, T = 0.1 and lam = 1 are those of the paper's own code (github.com/littleredxh/HardNegative); the formula in
    the paper shows no temperature (T = 1). That code also calls a triplet hard if sim_an > 0.8, and leaves out positives
    above 0.9999 as copies of the anchor's file: the paper has neither, nor has this.

    The AdaTriplet authors' "SCT" is another loss: its condition compares distances as if they were similarities, so that
    it pushes easy negatives and pulls at the positives of hard triplets; its two branches are averaged apart and added;
    the second has a margin and T = 1; and it is NaN where one branch has no triplet. Here none of that.
    """

    lam: float = 1.0
    temperature: float = 0.1
    mining: str = "hardest"
    slots: ClassVar[tuple[str, ...]] = ()

    def check(self) -> None:
        if self.lam < 0:
            raise InputError(f"SCT.lam must be 0 or more, not {self.lam}: it would pull hard negatives closer.")
        if self.temperature < 0.001:
            raise InputError(
                f"SCT.temperature must be 0.001 or more, not {self.temperature}: similarities are divided by it."
            )
        if self.mining not in MINING:
            kinds = "; ".join(f"{k}: {v}" for k, v in MINING.items())
            raise InputError(f"SCT.mining cannot be {self.mining!r}; choose one of {kinds}.")

    def __call__(self, pairs: Pairs, margin: Margin) -> LossTerms:
        sums = self._hardest(pairs) if self.mining == "hardest" else over_triplets(pairs, self._cells, 5)
        loss, *rest = pairs.total(sums).unbind()
        contrast, softmax, hard, easy = (x.detach() for x in rest)
        return LossTerms(
            total=pairs.mean(loss, hard + easy),
            parts={"contrast": pairs.mean(contrast, hard + easy), "softmax": pairs.mean(softmax, hard + easy)},
            active={"hard": pairs.mean(hard, hard + easy)},
        )

    def _cells(self, ap: Tensor, an: Tensor) -> tuple[list[Tensor], Tensor, Tensor]:
        """Loss, its branches before lam, their numbers; slopes by ap and by an."""
        hard = an > ap
        easy = ~hard & (ap - an < float("inf"))
        logit = (an - ap) / self.temperature
        contrast, softmax = torch.where(hard, an, 0), torch.where(hard, 0, softplus(logit))
        slope = torch.where(hard, 0, logit.sigmoid() / self.temperature)
        loss = self.lam * contrast + softmax
        return [loss, contrast, softmax, hard, easy], -slope, torch.where(hard, self.lam, slope)

    def _hardest(self, pairs: Pairs) -> Tensor:
        """The same sums, float64 [5], over each own anchor's nearest positive and nearest negative."""
        nearest = []
        for mask in (pairs.positive, pairs.negative):
            with torch.no_grad():
                column = torch.where(mask, pairs.sim, -float("inf")).argmax(1, keepdim=True)
            nearest.append(pairs.sim.gather(1, column).squeeze(1))
        ap, an = nearest  # [b]; arbitrary where there is none
        triplet = pairs.positive.any(1) & pairs.negative.any(1)
        hard = triplet & (an > ap)
        easy = triplet & ~hard
        contrast = torch.where(hard, an, 0).double().sum()
        softmax = torch.where(easy, softplus((an - ap) / self.temperature), 0).double().sum()
        counts = [hard.sum().double(), easy.sum().double()]
        return torch.stack([self.lam * contrast + softmax, contrast, softmax, *counts])
