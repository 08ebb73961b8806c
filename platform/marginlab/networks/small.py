"""The small network: a study on a laptop's CPU in minutes. Torch alone."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from marginlab import distributed
from marginlab.networks.trunk import Trunk
from marginlab.values import InputError, value

GROUPS = 8  # of channels, for GroupNorm
GRID = 4  # places per side that the last layer is averaged over


class Unit(nn.Module):
    """Scale each row to length 1, in float32 whatever the precision of the layers before: [B, D] to float32 [B, D]."""

    def forward(self, x: Tensor) -> Tensor:
        return F.normalize(x.float(), dim=1)


class Centre(nn.Module):
    """Takes the mean over the *global* batch away from every row, [B, D] to float32 [B, D]; in evaluation, a running mean.

    Without it a fresh network sends all images into one narrow cone (similarities near 1): the first epochs then only
    spread the cone, along whatever varies most between pictures, and mAP falls below that of the untrained network.
    The mean is over all ranks and has a gradient, so the number of ranks changes nothing.
    """

    mean: Tensor
    steps: Tensor

    def __init__(self, dim: int, momentum: float = 0.1) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("steps", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        x = x.float()
        if not self.training:
            return x - self.mean
        mean = distributed.gather(x).mean(0)
        with torch.no_grad():
            self.steps += 1
            self.mean += (mean - self.mean) * (1 / self.steps).clamp(min=self.momentum)
        return x - mean


@value
class SmallNetwork:
    """Four convolutions that stride early, averages over a 4 x 4 grid, a linear layer, the batch's centre and the unit sphere.

    The grid, not one global average, because who is in a picture shows in where things are: on knee phantoms the same
    training reached several times the mAP with it. GroupNorm looks at one image at a time, so the same images give the
    same numbers on any number of workers. Made for images of about 64 x 64 pixels: an epoch over 1,200 of them takes
    about a second, forward and backward, on one core.
    """

    width: int = 32  # channels of the second layer; each layer has twice as many as the one before
    dim: int = 128

    def check(self) -> None:
        if self.width < 2 * GROUPS or self.width % (2 * GROUPS):
            raise InputError(f"SmallNetwork.width must be a positive multiple of {2 * GROUPS}, not {self.width}.")
        if self.dim < 1:
            raise InputError(f"SmallNetwork.dim must be at least 1, not {self.dim}.")

    def build(self, channels: int) -> nn.Module:
        """A module from float [B, channels, H, W] to unit float32 [B, dim], initialised from torch's current RNG."""
        return nn.Sequential(
            *self._layers(channels),
            nn.AdaptiveAvgPool2d(GRID),
            nn.Flatten(),
            nn.Linear(4 * self.width * GRID**2, self.dim, bias=False),  # the centre would take a bias away again
            Centre(self.dim),
            Unit(),
        )

    def trunk(self, channels: int) -> Trunk:
        """[B, channels, H, W] to [B, 4 width, H / 16, W / 16], rounded up."""
        return Trunk(nn.Sequential(*self._layers(channels)), 4 * self.width, _norm, _finish)

    def _layers(self, channels: int) -> list[nn.Module]:
        return [
            *_layer(channels, self.width // 2, kernel=5),
            *_layer(self.width // 2, self.width, kernel=3),
            *_layer(self.width, 2 * self.width, kernel=3),
            *_layer(2 * self.width, 4 * self.width, kernel=3),
        ]


def _norm(channels: int) -> nn.Module:
    return nn.GroupNorm(math.gcd(GROUPS, channels), channels)


def _finish(dim: int) -> nn.Module:
    return nn.Sequential(Centre(dim), Unit())


def _layer(inputs: int, outputs: int, kernel: int) -> tuple[nn.Module, ...]:
    """Halves the height and the width."""
    conv = nn.Conv2d(inputs, outputs, kernel, stride=2, padding=kernel // 2, bias=False)
    nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
    return conv, nn.GroupNorm(GROUPS, outputs), nn.ReLU(inplace=True)
