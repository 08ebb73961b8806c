"""Networks: frozen values that build a module from images [B, C, H, W] to unit float32 embeddings [B, D]."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import nn

from marginlab.networks.attention import MirrorAttention, SelfAttention
from marginlab.networks.densenet import DenseNet121
from marginlab.networks.pooling import Gem, GemPooling
from marginlab.networks.resnet import ResNet18
from marginlab.networks.small import SmallNetwork, Unit
from marginlab.networks.trunk import Backbone, Trunk

__all__ = [
    "Backbone",
    "DenseNet121",
    "Gem",
    "GemPooling",
    "MirrorAttention",
    "Network",
    "ResNet18",
    "SelfAttention",
    "SmallNetwork",
    "Trunk",
    "Unit",
    "build_seeded",
    "normalises_by_batch",
]


class Network(Protocol):
    """What a network has to offer, a user's own among them."""

    def build(self, channels: int) -> nn.Module:
        """A module on the CPU, initialised from torch's current random state."""
        ...


def build_seeded(network: Network, channels: int, seed: int) -> nn.Module:
    """Build with initial weights that depend on the seed alone, and leave torch's random state as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(
            seed
        )  # torch.manual_seed would also reseed every GPU, which is not restored
        return network.build(channels)


def normalises_by_batch(network: Network) -> bool:
    """Whether images of one batch influence each other's embeddings in training."""
    modules = build_seeded(network, 1, 0).modules()
    return any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in modules)
