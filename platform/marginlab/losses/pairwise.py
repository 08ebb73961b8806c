"""Baselines of pytorch-metric-learning that are functions of a batch, as values. s: similarity; d = sqrt(2 - 2 s), distance.

Defaults are the published values where they are known, the library's otherwise; each docstring says which.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from marginlab.losses.library import PairwiseLoss
from marginlab.values import InputError, value


@value
class Contrastive(PairwiseLoss):
    """mean over positives of [d_ap - pos_margin]_+ above 0 + mean over negatives of [neg_margin - d_an]_+ above 0.

    Hadsell, Chopra, LeCun, CVPR 2006. Margins: the library's, as distances; 1 is the similarity 0.5. (AdaTriplet's code
    has 0 and 0, with which negatives do nothing; what its tables were made with is not known. The pair miner that it adds
    picks the pairs that the means are over anyway.)
    """

    pos_margin: float = 0.0
    neg_margin: float = 1.0

    def criterion(self) -> Any:
        from pytorch_metric_learning.losses import ContrastiveLoss

        return ContrastiveLoss(self.pos_margin, self.neg_margin)


@value
class LiftedStructure(PairwiseLoss):
    """mean over positive pairs of [log(sum_n e^(m - d_an) + sum_n e^(m - d_pn)) + d_ap - pos_margin]_+^2 / 2, m = neg_margin.

    Oh Song et al., CVPR 2016, arXiv 1511.06452; neg_margin 1 is theirs. Memory: positive x negative pairs.
    """

    neg_margin: float = 1.0
    pos_margin: float = 0.0

    def criterion(self) -> Any:
        from pytorch_metric_learning.losses import LiftedStructureLoss

        return LiftedStructureLoss(self.neg_margin, self.pos_margin)


@value
class GeneralizedLiftedStructure(PairwiseLoss):
    """mean over anchors of [log sum_p e^(d_ap - pos_margin) + log sum_n e^(neg_margin - d_an)]_+.

    Hermans, Beyer, Leibe, arXiv 1703.07737. Margins: the library's.
    """

    neg_margin: float = 1.0
    pos_margin: float = 0.0

    def criterion(self) -> Any:
        from pytorch_metric_learning.losses import GeneralizedLiftedStructureLoss

        return GeneralizedLiftedStructureLoss(self.neg_margin, self.pos_margin)


@value
class TupletMargin(PairwiseLoss):
    """mean over (a, p) of log(1 + sum_n e^(scale (s_an - cos(angle_ap - margin)))) + variance * intra-pair variance.

    The second term: mean over positives of [(1 - pos_eps) mean(s_ap) - s_ap]_+^2, and over negatives of
    [s_an - (1 + neg_eps) mean(s_an)]_+^2. Yu, Tao, ICCV 2019. Margin in degrees. All values are the library's, variance
    (its weight) that of its documentation and of AdaTriplet's code. The gradient of the angle has no bound at s_ap = 1: two
    images that are embedded alike in float32 make it a NaN. Memory: positive x negative pairs.
    """

    margin: float = 5.73
    scale: float = 64.0
    variance: float = 0.5
    pos_eps: float = 0.01
    neg_eps: float = 0.01
    above_zero: ClassVar[tuple[str, ...]] = ("scale",)
    remembers: ClassVar[bool] = False  # a sum of two

    def criterion(self) -> Any:
        from pytorch_metric_learning.losses import IntraPairVarianceLoss, MultipleLosses, TupletMarginLoss

        return MultipleLosses(
            {
                "tuplet": TupletMarginLoss(self.margin, self.scale),
                "variance": IntraPairVarianceLoss(self.pos_eps, self.neg_eps),
            },
            weights={"tuplet": 1, "variance": self.variance},
        )


@value
class MultiSimilarity(PairwiseLoss):
    """mean over anchors of log(1 + sum_P e^(-alpha (s - base))) / alpha + log(1 + sum_N e^(beta (s - base))) / beta.

    P and N hold what the miner picks: positives with s - epsilon < max s_an, negatives with s + epsilon > min s_ap;
    ``epsilon=None`` leaves it out (all pairs). Wang et al., CVPR 2019, arXiv 1904.06627. Values: the library's; the
    authors' released configuration has beta 40, else the same.
    """

    alpha: float = 2.0
    beta: float = 50.0
    base: float = 0.5
    epsilon: float | None = 0.1
    above_zero: ClassVar[tuple[str, ...]] = ("alpha", "beta")

    def criterion(self) -> Any:
        from pytorch_metric_learning.losses import MultiSimilarityLoss

        return MultiSimilarityLoss(self.alpha, self.beta, self.base)

    def miner(self) -> Any:
        from pytorch_metric_learning.miners import MultiSimilarityMiner

        return None if self.epsilon is None else MultiSimilarityMiner(self.epsilon)


@value
class Circle(PairwiseLoss):
    """mean, of those above 0, over anchors of log(1 + sum_n e^(gamma a_n (s_n - m)) sum_p e^(-gamma a_p (s_p - 1 + m))).

    a_p = [1 + m - s_p]_+, a_n = [s_n + m]_+, held constant. Sun et al., CVPR 2020, arXiv 2002.10857: m 0.4, gamma 80 for
    fine-grained retrieval (the library's default), 0.25 and 256 for faces.
    """

    m: float = 0.4
    gamma: float = 80.0
    above_zero: ClassVar[tuple[str, ...]] = ("gamma",)

    def criterion(self) -> Any:
        from pytorch_metric_learning.losses import CircleLoss

        return CircleLoss(self.m, self.gamma)


@value
class SupCon(PairwiseLoss):
    """mean, of those above 0, over anchors of -mean_p log(e^(s_ap / t) / sum over all others of e^(s / t)), t = temperature.

    Khosla et al., NeurIPS 2020, arXiv 2004.11362. Temperature: theirs and the library's.
    """

    temperature: float = 0.1
    above_zero: ClassVar[tuple[str, ...]] = ("temperature",)

    def criterion(self) -> Any:
        from pytorch_metric_learning.losses import SupConLoss

        return SupConLoss(self.temperature)


@value
class NTXent(PairwiseLoss):
    """mean over (a, p) of -log(e^(s_ap / t) / (e^(s_ap / t) + sum_n e^(s_an / t))), t = temperature.

    SimCLR's loss with labels (Chen et al., arXiv 2002.05709). Temperature: the library's. Memory: positive x negative pairs.
    """

    temperature: float = 0.07
    above_zero: ClassVar[tuple[str, ...]] = ("temperature",)

    def criterion(self) -> Any:
        from pytorch_metric_learning.losses import NTXentLoss

        return NTXentLoss(self.temperature)


@value
class NPairs(PairwiseLoss):
    """mean over identities i, one pair (a_i, p_i) of each, of -log(e^(s(a_i, p_i)) / sum_j e^(s(a_i, p_j))).

    Sohn, NIPS 2016. No parameters. The library takes the first pair of each identity.
    """

    remembers: ClassVar[bool] = False

    def criterion(self) -> Any:
        from pytorch_metric_learning.losses import NPairsLoss

        return NPairsLoss()


@value
class SmoothAP(PairwiseLoss):
    """1 - mean over queries of (1 / |P|) sum_{i in P} (1 + sum_{j in P} g_ij) / (1 + sum over all j of g_ij).

    g_ij = sigmoid((s_j - s_i) / temperature), j != i; P holds the query itself, as in the authors' code. Brown et al., ECCV
    2020, arXiv 2007.12163; temperature theirs. Identities need equally many images. The library (2.9) wants them side by
    side and confuses their number with that of the images of one, which goes unnoticed where both are equal: it is given
    the batch in that order, with labels that make it count right. It computes ranks from B x B x B numbers, in float32.
    """

    temperature: float = 0.01
    above_zero: ClassVar[tuple[str, ...]] = ("temperature",)
    remembers: ClassVar[bool] = False

    def criterion(self) -> Any:
        from pytorch_metric_learning.losses import SmoothAPLoss

        return _SideBySide(SmoothAPLoss(self.temperature))


class _SideBySide(nn.Module):
    """The library's SmoothAPLoss, fed what it reads: B / K groups of K rows, where K is the number of different labels."""

    def __init__(self, criterion: nn.Module) -> None:
        super().__init__()
        self.criterion = criterion

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        sizes = labels.bincount()
        sizes = sizes[sizes > 0]
        if sizes.min() != sizes.max():
            raise InputError(
                f"SmoothAP needs equally many images of every identity, but a batch has {int(sizes.min())} of one and "
                f"{int(sizes.max())} of another."
            )
        place = torch.arange(len(labels), device=labels.device) % sizes[0]
        loss: Tensor = self.criterion(x[labels.argsort(stable=True)], place)
        return loss


@value
class FastAP(PairwiseLoss):
    """1 - mean over queries of average precision, from soft histograms of d^2 in ``bins`` bins over 0..4.

    Cakir et al., CVPR 2019. Bins: theirs and the library's.
    """

    bins: int = 10
    above_zero: ClassVar[tuple[str, ...]] = ("bins",)
    remembers: ClassVar[bool] = False

    def criterion(self) -> Any:
        from pytorch_metric_learning.losses import FastAPLoss

        return FastAPLoss(self.bins)


PNP_VARIANTS = ("O", "Ds", "Dq", "Iu", "Ib")


@value
class PNP(PairwiseLoss):
    """Penalises negatives ranked before positives: 1 - mean over queries and P of (1 + r)^-alpha (variant "Dq").

    r = sum over negatives of sigmoid((s_n - s_p) / anneal); P holds the query itself. Variants: "O": r, "Ds": log(1 + r),
    "Iu": (1 + r) log(1 + r), "Ib": (b r - log(1 + b r)) / b^2. Li et al., AAAI 2022, arXiv 2102.04640; Dq with alpha 4 is
    the best of their released code. Memory: B x B x B numbers.
    """

    variant: str = "Dq"
    alpha: float = 4.0
    b: float = 2.0
    anneal: float = 0.01
    above_zero: ClassVar[tuple[str, ...]] = ("alpha", "b", "anneal")
    remembers: ClassVar[bool] = False

    def check(self) -> None:
        PairwiseLoss.check(self)
        if self.variant not in PNP_VARIANTS:
            raise InputError(f"PNP.variant cannot be {self.variant!r}; choose one of {', '.join(PNP_VARIANTS)}.")

    def criterion(self) -> Any:
        from pytorch_metric_learning.losses import PNPLoss

        return PNPLoss(self.b, self.alpha, self.anneal, self.variant)


@value
class ThresholdConsistent(PairwiseLoss):
    """lambda_plus * mean over positives below margin_plus of (margin_plus - s) + lambda_minus * that of negatives above.

    Zhang et al., arXiv 2307.04047, who add it to another loss; values theirs and the library's. margin_minus means what the
    slot beta means, and the second term is AdaTriplet's pair term; but a loss that read it alone would be half of this one.
    """

    margin_plus: float = 0.9
    margin_minus: float = 0.5
    lambda_plus: float = 1.0
    lambda_minus: float = 1.0
    remembers: ClassVar[bool] = False

    def criterion(self) -> Any:
        from pytorch_metric_learning.losses import ThresholdConsistentMarginLoss

        return ThresholdConsistentMarginLoss(self.lambda_plus, self.lambda_minus, self.margin_plus, self.margin_minus)
