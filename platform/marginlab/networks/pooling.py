"""Generalised-mean pooling, and a network that is a backbone with nothing but that: the plain end of the attention ablation."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from marginlab.networks.small import SmallNetwork
from marginlab.networks.trunk import check_backbone
from marginlab.values import InputError, value


class Gem(nn.Module):
    """(mean over positions of max(x, eps)^p)^(1/p) for each channel, [B, C, H, W] to [B, C]; p is learnt.

    p = 1 is the average, a large p nearly the maximum (Radenovic et al. 2019, "Fine-tuning CNN image retrieval with no
    human annotation", eq. 3; p starts at 3, as there). Computed as exp((logsumexp(p log x) - log N) / p), which is the
    same number but does not underflow where a channel is silent: in float32 eps^p is 0 for p = 8, and the gradient of p is
    then no number. float32 whatever the precision of the layers before, but float64 stays float64.
    """

    def __init__(self, p: float = 3.0, eps: float = 1e-6) -> None:
        super().__init__()
        self.p = nn.Parameter(torch.tensor(p))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        x = x if x.dtype == torch.float64 else x.float()
        x = x.flatten(2).clamp(min=self.eps)  # [B, C, N]
        return ((torch.logsumexp(self.p * x.log(), dim=2) - math.log(x.shape[2])) / self.p).exp()


class _Pooled(nn.Module):
    def __init__(self, maps: nn.Module, head: nn.Module, finish: nn.Module) -> None:
        super().__init__()
        self.maps, self.pool, self.head, self.finish = maps, Gem(), head, finish

    def features(self, images: Tensor) -> Tensor:
        out: Tensor = self.head(self.pool(self.maps(images)))
        return out

    def forward(self, images: Tensor) -> Tensor:
        out: Tensor = self.finish(self.features(images))
        return out

    def chain(self) -> list[nn.Module]:
        """``forward``, one after the other, for :func:`marginlab.networks.parts.cut`."""
        return [self.maps, self.pool, self.head, self.finish]


@value
class GemPooling:
    """A backbone whose last feature map is pooled by a generalised mean: [B, C, h, w] to [B, C], then the unit sphere.

    What :class:`MirrorAttention` and :class:`SelfAttention` are before they have learnt anything, once instead of twice.
    ``dim`` adds a linear layer C -> dim; without it the descriptor has the backbone's C numbers (SmallNetwork: 4 x width,
    ResNet18: 512, DenseNet121: 1024).
    """

    backbone: Any = SmallNetwork()
    dim: int | None = None

    def check(self) -> None:
        check_backbone("GemPooling", self.backbone)
        if self.dim is not None and self.dim < 1:
            raise InputError(f"GemPooling.dim must be at least 1, or None, not {self.dim}.")

    def build(self, channels: int) -> nn.Module:
        """A module from float [B, channels, H, W] to unit float32 [B, dim or C], initialised from torch's current RNG."""
        trunk = self.backbone.trunk(channels)
        return _Pooled(trunk.maps, linear(trunk.channels, self.dim), trunk.finish(self.dim or trunk.channels))


def linear(inputs: int, outputs: int | None) -> nn.Module:
    """No bias: the small network's centre would take it away again."""
    return nn.Identity() if outputs is None else nn.Linear(inputs, outputs, bias=False)
