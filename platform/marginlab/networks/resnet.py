"""The published backbone: ResNet-18 with a linear head on the unit sphere. MONAI is imported when it is built."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from marginlab.networks.small import Unit
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
        if self.weights is not None and self.sha256 is None:
            raise InputError(
                f"ResNet18.weights is {self.weights!r} without its sha256: a path does not say what is in the file. Add "
                "sha256='...', as printed by `sha256sum`."
            )

    def build(self, channels: int) -> nn.Module:
        """A module from float [B, channels, H, W] to unit float32 [B, dim], initialised from torch's current RNG."""
        from monai.networks.nets.resnet import resnet18  # takes seconds and imports mlflow

        backbone = resnet18(
            spatial_dims=2, n_input_channels=channels, num_classes=self.dim, conv1_t_stride=2, bias_downsample=False
        )
        if self.weights is not None and self.sha256 is not None:
            load_torchvision(backbone, read_weights(self.weights, self.sha256), self.weights)
        return nn.Sequential(backbone, Unit())


def read_weights(path: str, sha256: str) -> Mapping[str, Tensor]:
    """The state dict in a file whose SHA-256 is as expected. Nothing in the file is executed."""
    file = Path(path).expanduser()
    if not file.is_file():
        raise InputError(
            f"ResNet18.weights: there is no file {path!r} on this machine; put it where every worker sees it."
        )
    content = file.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != sha256.strip().lower():
        raise InputError(
            f"ResNet18.weights: {path!r} has SHA-256 {found}, not the expected {sha256}: it is another file."
        )
    try:
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as e:
        raise InputError(f"ResNet18.weights: {path!r} is not a file of tensors that torch can read safely: {e}") from e
    if not isinstance(state, Mapping) or not all(isinstance(v, Tensor) for v in state.values()):
        raise InputError(f"ResNet18.weights: {path!r} is not a state dict, a mapping from parameter names to tensors.")
    return state


def load_torchvision(backbone: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Copy a torchvision ResNet's weights, all but the head and a first convolution for other channels.

    Every other parameter must be there with its shape, and nothing else: a partly loaded network trains, badly.
    """
    own = backbone.state_dict()
    fresh = {k for k in own if k.startswith("fc.")}
    if "conv1.weight" in state and state["conv1.weight"].shape[1] != own["conv1.weight"].shape[1]:
        fresh.add("conv1.weight")
    given = {k: v for k, v in state.items() if k not in fresh and not k.startswith("fc.")}
    needed = {k for k in own if k not in fresh}
    counters = {k for k in needed if k.endswith("num_batches_tracked")}  # torchvision's older files lack them
    missing, surplus = needed - counters - set(given), set(given) - needed
    misshapen = {k for k in needed & set(given) if own[k].shape != given[k].shape}
    faults = {"misses": missing, "has the unknown": surplus, "has other shapes for": misshapen}
    told = [f"{what} {_some(keys)}" for what, keys in faults.items() if keys]
    if told:
        raise InputError(f"ResNet18.weights: {source!r} is not a torchvision ResNet-18: it {'; it '.join(told)}.")
    backbone.load_state_dict({**own, **given})


def _some(keys: set[str]) -> str:
    names = sorted(keys)
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
