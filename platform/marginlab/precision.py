"""In which precision a network computes: bfloat16 on a GPU, where torch's autocast has it, else what its weights are."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def precision(device: torch.device) -> torch.autocast:
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda")


def full(x: Tensor) -> Tensor:
    """float32 of what is less."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def forward(network: nn.Module, images: Tensor) -> Tensor:
    """Embeddings [B, D] in float32; bfloat16 inside the network on a GPU."""
    with precision(images.device):
        out: Tensor = network(images)
    return full(out)
