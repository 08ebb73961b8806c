"""The small network: a study on a laptop's CPU in minutes. Torch alone."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from marginlab.values import InputError, value

GROUPS = 8


class Unit(nn.Module):
    """Scale each row to length 1, in float32 whatever the precision of the layers before: [B, D] to float32 [B, D]."""

    def forward(self, x: Tensor) -> Tensor:
        return F.normalize(x.float(), dim=1)


@value
class SmallNetwork:
    """Three convolutions that stride early, then global average pooling, a linear layer and the unit sphere.

    GroupNorm looks at one image at a time, so the same images give the same numbers on any number of workers.
    Made for images of about 64 x 64 pixels: at 1,200 of them, an epoch's forward and backward take about a second.
    """

    width: int = 32  # channels of the first layer; the others have twice as many
    dim: int = 128

    def check(self) -> None:
        if self.width < GROUPS or self.width % GROUPS:
            raise InputError(f"SmallNetwork.width must be a positive multiple of {GROUPS}, not {self.width}.")
        if self.dim < 1:
            raise InputError(f"SmallNetwork.dim must be at least 1, not {self.dim}.")

    def build(self, channels: int) -> nn.Module:
        """A module from float [B, channels, H, W] to unit float32 [B, dim], initialised from torch's current RNG."""
        return nn.Sequential(
            *_layer(channels, self.width, kernel=7, stride=4),
            *_layer(self.width, 2 * self.width, kernel=3, stride=2),
            *_layer(2 * self.width, 2 * self.width, kernel=3, stride=1),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(2 * self.width, self.dim),
            Unit(),
        )


def _layer(inputs: int, outputs: int, kernel: int, stride: int) -> tuple[nn.Module, ...]:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
    return conv, nn.GroupNorm(GROUPS, outputs), nn.ReLU(inplace=True)
