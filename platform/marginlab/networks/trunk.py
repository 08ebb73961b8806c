"""What a backbone hands to a module that sits on its last feature map, such as mirror attention."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from torch import nn

from marginlab.values import InputError


@dataclass(frozen=True)
class Trunk:
    """A backbone up to its last feature map, before pooling, and what it uses besides, so that additions match it."""

    maps: nn.Module  # images [B, channels, H, W] to feature maps [B, C, h, w]
    channels: int  # C
    norm: Callable[[int], nn.Module]  # its normalisation for so many channels: by batch, or by groups of channels
    finish: Callable[[int], nn.Module]  # how it ends: [B, D] to unit float32 [B, D]


class Backbone(Protocol):
    """What a network has to offer besides ``build`` so that mirror attention can sit on it; a user's own may."""

    def trunk(self, channels: int) -> Trunk:
        """Freshly initialised from torch's current random state, on the CPU."""
        ...


def check_backbone(owner: str, backbone: Any) -> None:
    """Refuse what has no feature map, and a ``dim`` that would do nothing: the backbone's own head is not built."""
    if not callable(getattr(backbone, "trunk", None)):
        raise InputError(
            f"{owner}.backbone must be a network with a method trunk(channels), such as SmallNetwork() or ResNet18(), not "
            f"{backbone!r}."
        )
    fields = dataclasses.fields(backbone) if dataclasses.is_dataclass(backbone) else ()
    for f in fields:
        if f.name == "dim" and backbone.dim != f.default:
            raise InputError(
                f"{owner}.backbone.dim has no effect, for {owner} takes the feature map before that layer: leave it out and "
                f"set {owner}.dim."
            )
