"""A dataset and a run so small that a test can train them in a moment."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from marginlab.augment import Augment
from marginlab.data.subset import Data, Subset
from marginlab.networks import SmallNetwork
from marginlab.training import Run, State, Training

SIZE, CROP, IMAGES = 36, 32, 4  # pixels as stored, pixels as seen, images per identity

TRAINING = Training(
    network=SmallNetwork(width=16, dim=16), augment=Augment(crop=CROP), epochs=3, batch_size=32, lr=1e-3
)


def tiny_data(identities: int = 24, seed: int = 0) -> Data:
    """Identities are coarse patterns under noise; image k of each is taken at month 12 k. The last third validates."""
    rng = np.random.default_rng(seed)
    pattern = rng.integers(0, 256, (identities, 1, 1, 6, 6)).repeat(IMAGES, 1)
    pixels = np.kron(pattern, np.ones((SIZE // 6, SIZE // 6))) * 0.6 + rng.integers(
        0, 100, (identities, IMAGES, 1, SIZE, SIZE)
    )
    pixels = pixels.reshape(-1, 1, SIZE, SIZE).astype(np.uint8)
    split = identities * 2 // 3 * IMAGES
    train, validation = np.arange(split), np.arange(split, identities * IMAGES)
    return Data(_subset(pixels, train), _subset(pixels, validation), (0.5,), (0.25,), "tiny", 1, SIZE)


def _subset(pixels: np.ndarray, rows: np.ndarray) -> Subset:
    months = (rows % IMAGES * 12).astype(np.float32)
    label = np.unique(rows // IMAGES, return_inverse=True)[1].astype(np.int64)
    return Subset(pixels, rows, label, rows.copy(), months, months == 0, months > 0)


def tiny_run(seed: int = 1, **training: Any) -> Run:
    import dataclasses

    return Run("tiny", "tiny", dataclasses.replace(TRAINING, **training), 0, seed)


class Keep:
    """A report that remembers everything and says stop after ``stop`` epochs."""

    def __init__(self, stop: int | None = None) -> None:
        self.stop = stop
        self.rows: list[dict[str, float]] = []
        self.states: list[dict[str, torch.Tensor]] = []

    def __call__(self, epoch: int, metrics: dict[str, float], state: State) -> bool:
        self.rows.append({"epoch": epoch, **metrics})
        self.states.append({k: v.detach().clone() for k, v in state.tensors().items()})
        return epoch != self.stop


def timeless(row: dict[str, Any]) -> dict[str, Any]:
    """A row without what differs between two runs of the same numbers: the clock."""
    return {k: v for k, v in row.items() if not k.startswith("time")}
