"""The published backbone: ResNet-18 with a linear head on the unit sphere. MONAI is imported when it is built."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from marginlab.networks.small import Unit
from marginlab.networks.trunk import Trunk
from marginlab.networks.weights import check_weights, load_all_but, read_weights
from marginlab.values import InputError, value


@value
class ResNet18:
    """MONAI's ResNet-18, layer for layer torchvision's: its parameter names and shapes are the same.

    As in AdaTriplet, ImageNet weights keep everything but the head, now Linear(512, dim), and the first convolution
    where the images are not RGB: a 7 x 7, stride 2 one with fresh weights. Weights come from a local file, because a
    download is neither pinned nor possible on every cluster.
    """

    dim: int = 128
    weights: str | None = None  # a state dict as torchvision publishes it, such as resnet18-f37072fd.pth
    sha256: str | None = None  # of that file; required with it, so that the fingerprint covers the weights

    def check(self) -> None:
        if self.dim < 1:
            raise InputError(f"ResNet18.dim must be at least 1, not {self.dim}.")
        check_weights("ResNet18", self.weights, self.sha256)

    def build(self, channels: int) -> nn.Module:
        """A module from float [B, channels, H, W] to unit float32 [B, dim], initialised from torch's current RNG."""
        return nn.Sequential(self._backbone(channels, num_classes=self.dim), Unit())

    def trunk(self, channels: int) -> Trunk:
        """[B, channels, H, W] to [B, 512, H / 32, W / 32], rounded up."""
        backbone = self._backbone(channels, feed_forward=False)
        maps = nn.Sequential()
        for name, layer in backbone.named_children():
            if name not in ("avgpool", "fc"):
                maps.add_module(name, layer)
        return Trunk(maps, 512, nn.BatchNorm2d, lambda dim: Unit())

    def _backbone(self, channels: int, **head: Any) -> nn.Module:
        from monai.networks.nets.resnet import resnet18  # takes seconds and imports mlflow

        backbone: nn.Module = resnet18(
            spatial_dims=2, n_input_channels=channels, conv1_t_stride=2, bias_downsample=False, **head
        )
        if self.weights is not None and self.sha256 is not None:
            load_torchvision(backbone, read_weights("ResNet18", self.weights, self.sha256), self.weights)
        return backbone


def load_torchvision(backbone: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Copy a torchvision ResNet's weights, all but the head and a first convolution for other channels."""
    load_all_but(
        backbone, state, source, owner="ResNet18", kind="a torchvision ResNet-18", head="fc.", first="conv1.weight"
    )
