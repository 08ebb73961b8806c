"""Fundi as Kaggle's diabetic retinopathy competition distributes them: ``trainLabels.csv`` and colour JPEGs in ``train/``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray
from PIL import Image

from marginlab.data.eyepacs import EyePACS
from marginlab.data.phantom.draw import generator, shuffled
from marginlab.data.phantom.eye import SIDES, Eye, eyes
from marginlab.data.phantom.eye_picture import render
from marginlab.data.phantom.values import EyePacsPhantom
from marginlab.data.splits import drawn_split

PARTS = 5  # of every five patients, at random, one has an identifier that the reader draws for the test split
SPAN = 256  # numbers among which a patient's identifier is looked for: that none fits has a chance of 0.8 ** 256
QUALITY = 95  # of the JPEGs, colour at full resolution: small red lesions survive


def identifier(phantom: EyePacsPhantom, index: int) -> str:
    """A patient's number. The reader splits by it, so it is chosen to be on the side where the patient belongs."""
    wanted = "test" if _test(phantom, index) else "train"
    numbers = [str(SPAN * index + 10 + k) for k in range(SPAN)]
    sides = drawn_split(pl.Series(numbers), EyePACS.test)
    return next(n for n, side in zip(numbers, sides, strict=True) if side == wanted)


def images_of(phantom: EyePacsPhantom, index: int) -> tuple[bool, int]:
    """Whether a patient is in the reader's test split, and the number of pictures. Draws no eye."""
    return _test(phantom, index), len(SIDES)


def _test(phantom: EyePacsPhantom, index: int) -> bool:
    parts = shuffled(generator("eyepacs split", phantom.version, phantom.seed, index // PARTS), PARTS)
    return bool(parts[index % PARTS] == 0)


def pictures(phantom: EyePacsPhantom, index: int, person: dict[str, Eye]) -> list[NDArray[np.uint8]]:
    """The pictures of a patient before they are compressed, uint8 [size, W, 3] each, in the order of ``SIDES``."""
    return [render(phantom.version, phantom.seed, index, phantom.size, side, person[side]) for side in SIDES]


def write(phantom: EyePacsPhantom, folder: Path, progress: Callable[[int, int], None]) -> None:
    images, rows = folder / "train", ["image,level"]
    images.mkdir(exist_ok=True)
    for index in range(phantom.subjects):
        person, name = eyes(phantom.version, phantom.seed, index), identifier(phantom, index)
        for side, pixels in zip(SIDES, pictures(phantom, index, person), strict=True):
            Image.fromarray(pixels).save(images / f"{name}_{side}.jpeg", quality=QUALITY, subsampling=0)
            rows.append(f"{name}_{side},{person[side].grade}")
        progress(index + 1, phantom.subjects)
    (folder / "trainLabels.csv").write_text("\n".join(rows) + "\n")
