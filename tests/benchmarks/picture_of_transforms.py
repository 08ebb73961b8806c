"""Draws docs/augmentation.png: a phantom's image, each training transform alone, all together, and a dozen draws of training.

PYTHONPATH=platform python tests/benchmarks/picture_of_transforms.py          # a few seconds
"""

from __future__ import annotations

import io
from pathlib import Path

import matplotlib
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from marginlab.augment import COLUMNS, Augment
from marginlab.data.phantom import OaiPhantom
from marginlab.data.phantom.layout_oai import pictures, subject

matplotlib.use("Agg")
from matplotlib import pyplot as plt

FILE = Path(__file__).parents[2] / "docs" / "augmentation.png"
SIZE, CROP = 280, 256
NOTHING = {"noise_gain": 0.0, "noise_offset": 0.0, "angle": 0.0, "top": 0.5, "left": 0.5, "gamma": 1.0}
ALONE: dict[str, dict[str, float]] = {
    "as stored, 280 x 280": {},
    "centre crop, 256 x 256": {},
    "noise, gain 0.3": {"noise_gain": 0.3},
    "rotation, 10°": {"angle": 10.0},
    "crop at the lower right": {"top": 0.999, "left": 0.999},
    "gamma 0.5": {"gamma": 0.5},
    "gamma 1.5": {"gamma": 1.5},
    "all of them": {"noise_gain": 0.3, "angle": 10.0, "top": 0.999, "left": 0.999, "gamma": 1.5},
}


def image() -> Tensor:
    """uint8 [1, 1, 280, 280], a knee that nobody has."""
    phantom = OaiPhantom(subjects=1, size=SIZE)
    return torch.from_numpy(pictures(phantom, 0, subject(phantom, 0))[:1, None].copy())


def panels() -> list[tuple[str, np.ndarray]]:
    """Titles and pictures, 0 .. 1."""
    stored, augment, plain = image(), Augment(crop=CROP), ((0.0,), (1.0,))
    out = []
    for title, given in ALONE.items():
        row = torch.tensor([[(NOTHING | given)[c] for c in COLUMNS]])
        shown = stored[0, 0] / 255 if title.startswith("as stored") else augment.train(stored, row, *plain)[0, 0]
        out.append((title, shown.numpy()))
    drawn = torch.from_numpy(augment.draw(seed=0, epoch=1, step=0, count=8))
    for row, one in zip(drawn, augment.train(stored.expand(8, -1, -1, -1), drawn, *plain), strict=True):
        gain, _, angle, _, _, gamma = row.tolist()
        said = [f"noise {gain:.2f}"] * (gain > 0) + [f"{angle:+.0f}°"] * (angle != 0)
        said += [f"gamma {gamma:.2f}"] * (gamma != 1)
        out.append((", ".join(said) or "crop alone", one[0].numpy()))
    return out


def main() -> None:
    figure, axes = plt.subplots(4, 4, figsize=(10, 10.8), dpi=80)
    figure.subplots_adjust(left=0.01, right=1, top=0.97, bottom=0, wspace=0.02, hspace=0.1)
    for axis, (title, picture) in zip(axes.flat, panels(), strict=True):
        axis.imshow(picture, cmap="gray", vmin=0, vmax=1, extent=(0, len(picture), len(picture), 0))
        axis.set_xlim(0, SIZE)  # one scale for all
        axis.set_ylim(SIZE, 0)
        axis.set_title(title, fontsize=9, loc="left")
        axis.axis("off")
    drawn = io.BytesIO()
    figure.savefig(drawn)
    Image.open(drawn).convert("L").save(FILE, optimize=True)


if __name__ == "__main__":
    main()
