"""DenseNet-121, the backbone of the published mirror attention. MONAI is imported when it is built."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor, nn

from marginlab.networks.small import Unit
from marginlab.networks.trunk import Trunk
from marginlab.networks.weights import check_weights, load_all_but, read_weights
from marginlab.values import InputError, value

_LAYER = re.compile(r"(denselayer\d+)\.(norm|conv)\.?([12])\.")


@value
class DenseNet121:
    """MONAI's DenseNet-121, average pooling and a linear head on the unit sphere.

    Weights are torchvision's, as for :class:`ResNet18`: from a local file, all but the head, now Linear(1024, dim), and
    the first convolution where the images are not RGB. Both spellings of torchvision's names are known, ``norm.1`` of
    the published file and ``norm1`` of a saved model.
    """

    dim: int = 128
    weights: str | None = None  # a state dict as torchvision publishes it, such as densenet121-a639ec97.pth
    sha256: str | None = None  # of that file; required with it, so that the fingerprint covers the weights

    def check(self) -> None:
        if self.dim < 1:
            raise InputError(f"DenseNet121.dim must be at least 1, not {self.dim}.")
        check_weights("DenseNet121", self.weights, self.sha256)

    def build(self, channels: int) -> nn.Module:
        """A module from float [B, channels, H, W] to unit float32 [B, dim], initialised from torch's current RNG."""
        return nn.Sequential(self._backbone(channels), Unit())

    def trunk(self, channels: int) -> Trunk:
        """[B, channels, H, W] to [B, 1024, about H / 32, about W / 32], after the last ReLU."""
        maps = nn.Sequential(self._backbone(channels).get_submodule("features"), nn.ReLU())
        return Trunk(maps, 1024, nn.BatchNorm2d, lambda dim: Unit())

    def _backbone(self, channels: int) -> nn.Module:
        from monai.networks.nets.densenet import DenseNet  # takes seconds and imports mlflow

        backbone: nn.Module = DenseNet(spatial_dims=2, in_channels=channels, out_channels=self.dim)
        if self.weights is not None and self.sha256 is not None:
            load_torchvision(backbone, read_weights("DenseNet121", self.weights, self.sha256), self.weights)
        return backbone


def load_torchvision(backbone: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Copy a torchvision DenseNet-121's weights, all but the head and a first convolution for other channels."""
    load_all_but(
        backbone,
        {monai_name(k): v for k, v in state.items()},
        source,
        owner="DenseNet121",
        kind="a torchvision DenseNet-121",
        head="class_layers.",
        first="features.conv0.weight",
    )


def monai_name(torchvision_name: str) -> str:
    """``denselayer1.norm.1.weight`` or ``denselayer1.norm1.weight`` to ``denselayer1.layers.norm1.weight``, and the head's."""
    name = _LAYER.sub(r"\1.layers.\2\3.", torchvision_name)
    return re.sub(r"^classifier\.", "class_layers.out.", name)
