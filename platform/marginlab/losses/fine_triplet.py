"""The fine triplet loss of mirror attention (Fang et al., Biomed. Signal Process. Control 80, 2023, 104277), repaired."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from marginlab.losses.pairs import LossTerms, Pairs, linear
from marginlab.values import InputError, value

if TYPE_CHECKING:
    from marginlab.margins import Margin

LEAST = 1e-3  # of an agreement in 0..1, so that no degree is 0 / 0
SCALE = 80.0  # exponents stay below 4 * SCALE: finite in float64, and their slopes by sim in float32


@value
class FineTriplet:
    """log(1 + mean over positive pairs of exp(-g r a_p (s - (1 - m))) * mean over negative pairs of exp(g a_n (s - m))).

    s is a pair's similarity, m = ``margin``, g = ``scale``, a_p = [1 + m - s]_+ and a_n = [s + m]_+ (not held constant by
    the gradient, unlike in Circle loss, which this is otherwise for r = 1). So the exponents are
    g r ((1 - s)^2 - m^2) and g (max(s, -m)^2 - m^2): positives are drawn to 1, negatives to 0 from either side unless
    they are below -m. Pairs are unordered; all of the batch count.

    r is the pair's relevance degree, from each image's own two mirrored views: d_i is the cosine of the two halves of
    descriptor i (:attr:`~marginlab.losses.Pairs.agreement`), e_i = (1 + d_i) / 2, and
    r_ij = 2 / (e_i / e_j + e_j / e_i), which is 1 where the images' views agree alike. Nothing is held constant. A network
    whose descriptor has no two halves of the kind wants ``degrees=False`` (r = 1), as the authors' later commits have it.

    Source: the only commit of github.com/fjssharpsword/FundusDR with degrees, 1b050ef; m and g are its values.
    Repaired (published numbers for it do not exist):

    - r_ij = d_j / d_i depended on the order of the batch, was unbounded where d_i is near 0 and negative where the signs
      differ. Now 0 < r_ij = r_ji <= 1: one over the mean of the two orders' degrees, of agreements in 0..1, not below
      0.001.
    - The sums were not normalised, and the loss contained log(number of positive pairs * number of negative pairs). Now
      means: its value and gradient do not depend on the batch's size.
    - g was missing from the positives' exponent (it was 1). Now both have it.
    """

    margin: float = 0.25
    scale: float = 1.0
    degrees: bool = True
    slots: ClassVar[tuple[str, ...]] = ()

    def check(self) -> None:
        if not 0 <= self.margin <= 1:
            raise InputError(
                f"FineTriplet.margin must be in 0..1, not {self.margin}: "
                "positives are to be above 1 - margin and negatives below margin, as cosines."
            )
        if not 0 < self.scale <= SCALE:
            raise InputError(
                f"FineTriplet.scale must be above 0 and at most {SCALE:g}, not {self.scale}: "
                "beyond it exponentials overflow."
            )

    def __call__(self, pairs: Pairs, margin: Margin) -> LossTerms:
        sums = pairs.total(torch.cat([self._positive(pairs), self._negative(pairs)]))
        far_sum, far, near_sum, near = sums.unbind()
        negative_count = (len(pairs.labels) - pairs.classes.size.double()).sum() / 2
        positive, negative = pairs.mean(far_sum, pairs.positive_count), pairs.mean(near_sum, negative_count)
        return LossTerms(
            total=torch.log1p(positive * negative),
            parts={"positive": positive.detach(), "negative": negative.detach()},
            active={
                "positive": pairs.mean(far.detach(), pairs.positive_count),
                "negative": pairs.mean(near.detach(), negative_count),
            },
        )

    def _positive(self, pairs: Pairs) -> Tensor:
        """Of the positive pairs this rank owns, float64 [2]: summed exponentials, and how many are below 1 - margin."""
        sim, column, real = pairs.positives()
        own = torch.arange(pairs.start, pairs.start + len(sim), device=sim.device)
        owned = real & (own[:, None] < column)
        exponent = self.scale * ((1 - sim.double()).square() - self.margin**2)
        if self.degrees:
            agreement = ((1 + pairs.agreement.double()) / 2).clamp(min=LEAST)  # [B]
            one, other = agreement[pairs.rows, None], agreement[column]
            exponent = exponent * (2 * one * other / (one.square() + other.square()))
        far = owned & (sim < 1 - self.margin)
        return torch.stack([torch.where(owned, exponent.exp(), 0).sum(), far.sum().double()])

    def _negative(self, pairs: Pairs) -> Tensor:
        """Of the negative pairs this rank owns, float64 [2]: summed exponentials, and how many are above the margin."""
        m, g = self.margin, self.scale
        with torch.no_grad():
            weight = torch.empty_like(pairs.sim)
            sums = pairs.sim.new_zeros((len(pairs.sim), 2), dtype=torch.float64)
            for rows in pairs.chunks():
                sim = pairs.sim[rows].double()
                owned = pairs.negative[rows] & pairs.first[rows]
                term = torch.where(owned, (g * (sim.clamp(min=-m).square() - m**2)).exp(), 0)
                weight[rows] = (2 * g * sim * term * (sim > -m)).to(weight.dtype)
                sums[rows] = torch.stack([term.sum(1), (owned & (sim > m)).sum(1).double()], 1)
            total, near = sums.sum(0).unbind()
        return torch.stack([linear(pairs.sim, total, weight), near])
