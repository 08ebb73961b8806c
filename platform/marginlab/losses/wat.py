"""WAT: the triplet loss whose margin grows with the triplet's difficulty, as a baseline of the AdaTriplet paper."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch

from marginlab.losses.pairs import LossTerms, Pairs
from marginlab.losses.triplet import triplet_sums
from marginlab.values import InputError, value

if TYPE_CHECKING:
    from marginlab.margins import Margin


@value
class WAT:
    """mean over active triplets of (sim_an - sim_ap + epsilon), with epsilon = (k (4 - k) + 2) / (6 - k).

    Published with AdaTriplet (arXiv 2205.02849, code, ``mode: weakly``): triplet t has its own margin
    m_t = k + (2 - 2 gap_t) / (4 - k), is mined if gap_t <= m_t, whatever ``type_of_triplets`` says, and m_t is held
    constant by the gradient. Solved for the gap, gap_t <= m_t says gap_t <= epsilon, and
    m_t - gap_t = (6 - k) / (4 - k) * (epsilon - gap_t). So the mined triplets and the gradient are those of the triplet
    loss over all triplets at the fixed margin epsilon: 1/3 for k = 0, 1 for k = 1, 1.5 for the published k = 2.

    This loss is that closed form. Its gradient is the released code's; its value is (4 - k) / (6 - k) times the released
    one, which is not the integral of its own gradient. The name is of Zhao et al. (arXiv 1909.12939), who take the
    margin from the similarity of weak text labels, of which these data have none.
    """

    k: float = 2.0
    slots: ClassVar[tuple[str, ...]] = ()

    def check(self) -> None:
        if not 0 <= self.k < 4:
            raise InputError(f"WAT.k must be in 0..4 and below 4, not {self.k}: the margin divides by 4 - k.")

    @property
    def epsilon(self) -> float:
        """The gap in similarity that the loss asks for."""
        return (self.k * (4 - self.k) + 2) / (6 - self.k)

    def __call__(self, pairs: Pairs, margin: Margin) -> LossTerms:
        epsilon = torch.tensor(self.epsilon, dtype=torch.float64)
        loss, active = pairs.total(triplet_sums(pairs, epsilon, "all")).unbind()
        mean = pairs.mean(loss, active)
        return LossTerms(
            mean, {"triplet": mean.detach()}, {"triplet": pairs.mean(active.detach(), pairs.triplet_count)}
        )
