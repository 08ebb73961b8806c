"""What the input is held against: a DataLoader over image files, transforms image by image, transforms one after another.

Plain PyTorch, as one would write it without MarginLab; same sizes, probabilities and ranges as ``Augment()``.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from marginlab.augment import Augment, _noise_bank

SIZE, CROP = 280, 256
MEAN, STD = 0.5, 0.25


class Files(Dataset[Tensor]):
    """PNGs, each decoded and resized when it is asked for."""

    def __init__(self, files: list[Path], augmented: bool) -> None:
        self.files, self.augmented = files, augmented

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Tensor:
        with Image.open(self.files[index]) as image:
            pixels = np.asarray(image.convert("L").resize((SIZE, SIZE), Image.Resampling.BILINEAR))
        return one_image(torch.from_numpy(pixels.copy()), self.augmented)


class Stored(Dataset[Tensor]):
    """Images that were decoded once, as MarginLab stores them."""

    def __init__(self, pixels: np.ndarray, count: int) -> None:
        self.pixels, self.count = pixels, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Tensor:
        return one_image(torch.from_numpy(self.pixels[index % len(self.pixels), 0].copy()), True)


def loader(dataset: Dataset[Tensor], batch: int) -> DataLoader[Tensor]:
    return DataLoader(dataset, batch, shuffle=True, num_workers=2, persistent_workers=True, worker_init_fn=_alone)


def _alone(worker: int) -> None:
    torch.set_num_threads(1)


@torch.no_grad()
def one_image(pixels: Tensor, augmented: bool) -> Tensor:
    """uint8 [S, S] to float32 [1, crop, crop]; every transform only where the coin says so."""
    x = pixels.float() / 255
    top = left = (SIZE - CROP) // 2
    if augmented:
        coin = torch.rand(3).tolist()
        if coin[0] < 0.5:
            noise, gain = torch.randn_like(x), 0.3 * float(torch.rand(()))
            low, high = noise.aminmax()
            x = (1 - gain) * x + gain * (noise - low) / (high - low)
        if coin[1] < 0.5:
            a = math.radians(10 * (2 * float(torch.rand(())) - 1))
            turn = torch.tensor([[[math.cos(a), -math.sin(a), 0], [math.sin(a), math.cos(a), 0]]])
            grid = F.affine_grid(turn, [1, 1, SIZE, SIZE], align_corners=False)
            x = F.grid_sample(x[None, None], grid, align_corners=False)[0, 0]
        top, left = (int(v) for v in torch.randint(SIZE - CROP + 1, (2,)))
    x = x[top : top + CROP, left : left + CROP]
    if augmented and coin[2] < 0.5:
        x = x.clamp(0, 1) ** (1 / (0.5 + float(torch.rand(()))))
    return ((x - MEAN) / STD)[None]


@torch.no_grad()
def one_after_another(images: Tensor, draws: Tensor) -> Tensor:
    """``Augment().train`` with a whole-batch operation for each transform: noise, rotation of the whole image, crop, gamma.

    The same result up to rounding.
    """
    gain, offset, angle, top, left, gamma = (v[:, None, None, None] for v in draws.unbind(1))
    b, length = len(images), images[0].numel()
    x = images.float() / 255
    noise = _noise_bank(length, images.device).unfold(0, length, 1)[offset.long().flatten()].view_as(x)
    low, high = noise.amin((1, 2, 3), True), noise.amax((1, 2, 3), True)
    x = (1 - gain) * x + gain * (noise - low) / (high - low)
    turn = torch.deg2rad(angle).flatten()
    cos, sin, zero = turn.cos(), turn.sin(), torch.zeros(b)
    affine = torch.stack([torch.stack([cos, -sin, zero], 1), torch.stack([sin, cos, zero], 1)], 1)
    x = F.grid_sample(x, F.affine_grid(affine, list(x.shape), align_corners=False), align_corners=False)
    starts = [((v.flatten() * (SIZE - CROP + 1)).long()).clamp(max=SIZE - CROP).tolist() for v in (top, left)]
    x = torch.stack([image[:, i : i + CROP, j : j + CROP] for image, i, j in zip(x, *starts, strict=True)])
    x = x.clamp(0, 1) ** (1 / gamma)
    return (x - MEAN) / STD


def augment() -> Augment:
    return Augment(crop=CROP)
