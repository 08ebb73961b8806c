"""A run whose similarities are planted: a network that answers with given vectors, so that every margin can be worked out by hand.

A batch is two identities with two images each. Axes and the vector of four halves have products that float32 holds exactly.

    Q   A = e1, e1   B = e2, e2     gaps 1 eight times                                 negatives 0, 0, 0, 0        positives 1, 1
    P   A = e1, e1   B = e2, h      gaps 0, 0, 0.5, 0.5, 0.5, 0.5, 1, 1                negatives 0, 0, 0.5, 0.5    positives 1, 0.5
    R   A = e1, h    B = -e1, -e1   gaps 1, 1, 1.5, 1.5, 1.5, 1.5, 2, 2                negatives -1, -1, -0.5, -0.5  positives 0.5, 1

Epochs of two batches: Q P, R P, Q Q. Over an epoch (sums of gaps, of negatives, of positives):
    first    12 of 16,  1 of 8,  3.5 of 4
    second   16 of 16, -2 of 8,  3 of 4
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from marginlab.augment import Augment
from marginlab.data.subset import Data, Subset
from marginlab.losses import Pairs
from marginlab.training import Run, Training
from marginlab.values import value

E1, E2, H = (1.0, 0, 0, 0), (0, 1.0, 0, 0), (0.5, 0.5, 0.5, 0.5)
BATCHES = {"Q": (E1, E1, E2, E2), "P": (E1, E1, E2, H), "R": (E1, H, (-1.0, 0, 0, 0), (-1.0, 0, 0, 0))}
EPOCHS = ("QP", "RP", "QQ")
SIZE = 4  # pixels


def pairs(name: str) -> Pairs:
    return Pairs.of(torch.tensor(BATCHES[name]), torch.tensor([0, 0, 1, 1]), max_positives=1)


class _Planted(nn.Module):
    """Image k of identity i is of brightness 2 i + k. The identity of the smaller number is A, the other one is B."""

    step: Tensor
    batches: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.weight.register_hook(torch.zeros_like)  # whatever the loss says, nothing is learnt
        self.register_buffer("batches", torch.tensor([BATCHES[name] for name in "".join(EPOCHS)]))
        self.register_buffer("step", torch.tensor(0))

    def forward(self, images: Tensor) -> Tensor:
        brightness = images.mean((1, 2, 3)).mul(255).round().long()
        identity = brightness // 2
        slot = 2 * (identity != identity.min()) + brightness % 2
        vectors = self.batches[self.step if self.training else -1]
        if self.training:
            self.step += 1
        return vectors[slot] + self.weight


@value
class Planted:
    def build(self, channels: int) -> nn.Module:
        return _Planted()


def data() -> Data:
    """Four identities of two images to train with, and two to validate with."""

    def subset(rows: np.ndarray) -> Subset:
        return Subset(
            pixels, rows, rows // 2 - rows[0] // 2, rows, rows % 2 * np.float32(12), rows % 2 == 0, rows % 2 == 1
        )

    pixels = np.arange(12, dtype=np.uint8)[:, None, None, None].repeat(SIZE, 2).repeat(SIZE, 3)
    return Data(subset(np.arange(8)), subset(np.arange(8, 12)), (0.0,), (1.0,), "planted", 1, SIZE)


def run(loss: Any, policy: Any, epochs: int = len(EPOCHS)) -> Run:
    augment = Augment(crop=SIZE, rotate=0, noise=0, probability=0)
    training = Training(loss, policy, Planted(), augment, epochs=epochs, batch_size=4, per_identity=2)
    return Run("planted", "planted", training, 0, 0)
