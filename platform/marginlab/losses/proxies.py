"""Baselines of pytorch-metric-learning that learn proxies of the identities, as values. s_j: similarity to proxy j.

L: identities of the training split; y: an image's own. Proxies are parameters: they start from the run's seed, are trained
by the network's optimiser (same weight decay) and are in the checkpoint. ``lr_factor`` times the network's learning rate is
theirs: as published where that is known, 1 otherwise.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from marginlab.losses.library import Adapter, LibraryLoss
from marginlab.values import InputError, value


class ProxyLoss(LibraryLoss):
    """A loss of the library with parameters. It is built before it is called (``marginlab.losses.stateful``)."""

    def criterion(self, classes: int, dim: int) -> Any:
        """The library's module."""
        raise NotImplementedError

    def build(self, classes: int, dim: int) -> nn.Module:
        return Adapter(self.criterion(classes, dim))


@value
class ArcFace(ProxyLoss):
    """mean of -log softmax at y of scale * s_j, with cos(angle_y + margin) in place of s_y. Margin in degrees.

    Deng et al., CVPR 2019, arXiv 1801.07698: margin 0.5 radians, scale 64. AdaTriplet's code reads its margin of 0.25 as
    degrees, counts images as identities, and leaves the proxies at random; here all three are as the paper has them. It
    also weights images by an angular miner, which is left out.
    """

    margin: float = 28.6
    scale: float = 64.0
    lr_factor: float = 1.0
    above_zero: ClassVar[tuple[str, ...]] = ("scale", "lr_factor")

    def criterion(self, classes: int, dim: int) -> Any:
        from pytorch_metric_learning.losses import ArcFaceLoss

        return ArcFaceLoss(classes, dim, self.margin, self.scale)


@value
class SubCenterArcFace(ProxyLoss):
    """ArcFace with ``centers`` proxies per identity, of which the nearest counts. Deng et al., ECCV 2020: 3 of them."""

    margin: float = 28.6
    scale: float = 64.0
    centers: int = 3
    lr_factor: float = 1.0
    above_zero: ClassVar[tuple[str, ...]] = ("scale", "centers", "lr_factor")

    def criterion(self, classes: int, dim: int) -> Any:
        from pytorch_metric_learning.losses import SubCenterArcFaceLoss

        return SubCenterArcFaceLoss(
            num_classes=classes, embedding_size=dim, margin=self.margin, scale=self.scale, sub_centers=self.centers
        )


@value
class CosFace(ProxyLoss):
    """mean of -log softmax at y of scale * s_j, with s_y - margin in place of s_y.

    Wang et al., CVPR 2018, arXiv 1801.09414; values theirs and the library's. The margin is a gap in similarity, but to
    proxies: a gap between pairs (epsilon) says nothing about it.
    """

    margin: float = 0.35
    scale: float = 64.0
    lr_factor: float = 1.0
    above_zero: ClassVar[tuple[str, ...]] = ("scale", "lr_factor")

    def criterion(self, classes: int, dim: int) -> Any:
        from pytorch_metric_learning.losses import CosFaceLoss

        return CosFaceLoss(classes, dim, margin=self.margin, scale=self.scale)


@value
class NormalizedSoftmax(ProxyLoss):
    """mean of -log softmax at y of s_j / temperature. Zhai, Wu, BMVC 2019, arXiv 1811.12649; temperature theirs."""

    temperature: float = 0.05
    lr_factor: float = 1.0
    above_zero: ClassVar[tuple[str, ...]] = ("temperature", "lr_factor")

    def criterion(self, classes: int, dim: int) -> Any:
        from pytorch_metric_learning.losses import NormalizedSoftmaxLoss

        return NormalizedSoftmaxLoss(classes, dim, self.temperature)


@value
class ProxyNCA(ProxyLoss):
    """mean of -log softmax at y of -scale * d_j^2, over all proxies. Movshovitz-Attias et al., ICCV 2017, arXiv 1703.07464.

    Scale: the library's.
    """

    scale: float = 1.0
    lr_factor: float = 1.0
    above_zero: ClassVar[tuple[str, ...]] = ("scale", "lr_factor")

    def criterion(self, classes: int, dim: int) -> Any:
        from pytorch_metric_learning.losses import ProxyNCALoss

        return ProxyNCALoss(classes, dim, softmax_scale=self.scale)


@value
class ProxyAnchor(ProxyLoss):
    """sum over proxies in the batch of log(1 + sum over its images of e^(-alpha (s - margin))) / their number
    + sum over all proxies of log(1 + sum over others' images of e^(alpha (s + margin))) / L.

    Kim et al., CVPR 2020, arXiv 2003.13911; all values those of the authors' code (train.py), which also trains the head
    alone in its first epoch and clips gradients.
    """

    margin: float = 0.1
    alpha: float = 32.0
    lr_factor: float = 100.0
    above_zero: ClassVar[tuple[str, ...]] = ("alpha", "lr_factor")

    def criterion(self, classes: int, dim: int) -> Any:
        from pytorch_metric_learning.losses import ProxyAnchorLoss

        return ProxyAnchorLoss(classes, dim, self.margin, self.alpha)


@value
class SoftTriple(ProxyLoss):
    """mean of -log softmax at y of la * S_j, with S_y - margin in place of S_y, + tau * mean distance of a class's centres.

    S_j = sum_k softmax_k(s_jk / gamma) s_jk over the ``centers`` of identity j. Qian et al., ICCV 2019, arXiv 1909.05235; all
    values those of the authors' code (train.py: centre learning rate 0.01, the network's 0.0001). The mean distance is
    sum over pairs of centres of one identity of sqrt(2 - 2 s), over L centers (centers - 1): the library's, without its
    matrix of all centres by all. AdaTriplet's code sets the margin to 0.25, has no second term, and leaves the centres
    at random.
    """

    centers: int = 10
    la: float = 20.0
    gamma: float = 0.1
    margin: float = 0.01
    tau: float = 0.2
    lr_factor: float = 100.0
    above_zero: ClassVar[tuple[str, ...]] = ("centers", "la", "gamma", "lr_factor")

    def check(self) -> None:
        ProxyLoss.check(self)
        if self.tau < 0:
            raise InputError(f"SoftTriple.tau must be 0 or more, not {self.tau}: it would drive centres apart.")

    def criterion(self, classes: int, dim: int) -> Any:
        from pytorch_metric_learning.losses import SoftTripleLoss

        together = {"weight_regularizer": _Together(self.centers), "weight_reg_weight": self.tau}
        regularised = self.tau > 0 and self.centers > 1
        return SoftTripleLoss(
            classes, dim, self.centers, self.la, self.gamma, self.margin, **(together if regularised else {})
        )


class _Together(nn.Module):
    """The library's SparseCentersRegularizer, in L x K x K numbers in place of (L K) x (L K)."""

    def __init__(self, centers: int) -> None:
        super().__init__()
        self.centers = centers

    def forward(self, weights: Tensor) -> Tensor:
        """weights: [L * K, D], the K centres of an identity side by side."""
        unit = normalize(weights, dim=1).reshape(-1, self.centers, weights.shape[1])
        i, j = torch.triu_indices(self.centers, self.centers, 1, device=weights.device)
        sim = (unit @ unit.mT)[:, i, j]
        apart = (2 + torch.finfo(sim.dtype).tiny - (2 * sim).clamp(max=2)).sqrt()
        mean: Tensor = apart.sum() / (2 * sim.numel())
        return mean
