"""A backbone of one 1 x 1 convolution: whatever moves the pixels of an image moves its feature map in the same way."""

from __future__ import annotations

from torch import nn

from marginlab.networks import Trunk, Unit
from marginlab.values import value


@value
class Pointwise:
    width: int = 8

    def build(self, channels: int) -> nn.Module:
        return nn.Sequential(nn.Conv2d(channels, self.width, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), Unit())

    def trunk(self, channels: int) -> Trunk:
        maps = nn.Sequential(nn.Conv2d(channels, self.width, 1), nn.Softplus())
        return Trunk(maps, self.width, lambda n: nn.GroupNorm(2, n), lambda dim: Unit())
