"""A network in two parts: the body, which looks at one image at a time, and the end, which may look at the whole batch."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from marginlab.networks.small import Centre
from marginlab.values import InputError


class Parts(NamedTuple):
    """``end(body(images))`` is what the network gives; the end has no parameters."""

    body: nn.Module  # images [B, C, H, W] to features [B, ...], each image by itself
    end: nn.Module  # features [B, ...] to embeddings [B, D]


class _Features(nn.Module):
    """What a network does before its ``finish``."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        out: Tensor = self.network.features(images)  # type: ignore[operator]
        return out


def cut(network: nn.Module) -> Parts:
    """Cut a network, in training mode, before the first thing in it that looks at the batch.

    A ``Sequential`` is cut between its children. Another module may have ``features(images)`` and a module ``finish`` with
    ``forward(images) = finish(features(images))``. The parts share the network's modules; nothing is copied.

    Raises:
        InputError: what looks at the batch is inside, as in a network with batch normalisation, and cannot be cut off.
    """
    seen = looks_at_batch(network)
    if seen is None:
        return Parts(network, nn.Identity())
    parts = Parts(network, nn.Identity())
    if isinstance(network, nn.Sequential):
        first = next(i for i, child in enumerate(network) if looks_at_batch(child) is not None)
        parts = Parts(network[:first], network[first:])
    elif hasattr(network, "features") and isinstance(getattr(network, "finish", None), nn.Module):
        parts = Parts(_Features(network), network.finish)  # type: ignore[arg-type]
    cut_off = set(parts.end.modules())
    left = [m for m in parts.body.modules() if m not in cut_off and _looks(m)]
    if left or not any(True for _ in parts.body.parameters()) or any(True for _ in parts.end.parameters()):
        raise InputError(
            f"The network cannot take a batch in chunks: it normalises by the batch ({seen}), so each image's embedding depends "
            "on those beside it. Leave chunk out, freeze its batch normalisation, or take one that looks at each image alone."
        )
    return parts


def looks_at_batch(module: nn.Module) -> str | None:
    """The name of the first module inside, itself included, by which images of a batch change each other's embeddings."""
    return next((type(m).__name__ for m in module.modules() if _looks(m)), None)


def _looks(module: nn.Module) -> bool:
    return module.training and isinstance(module, (_BatchNorm, Centre))
