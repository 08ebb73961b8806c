"""Fundi as Kaggle's diabetic retinopathy competition distributes them, and as resized copies of it do.

``competition``: ``trainLabels.csv`` and colour JPEGs in ``train/``. ``flat``: all beside each other. ``resized``: the folders of
the copy with borders. ``cropped``: of the copy without, which lacks some images; what it has is in a second table.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from PIL import Image

from marginlab.data.decode import bounds
from marginlab.data.eyepacs import EyePACS
from marginlab.data.phantom.draw import generator, shuffled
from marginlab.data.phantom.eye import SIDES, Eye, eyes
from marginlab.data.phantom.eye_picture import render
from marginlab.data.phantom.files import save
from marginlab.data.phantom.values import EyePacsPhantom
from marginlab.data.splits import drawn_split

PARTS = 5  # of every five patients, at random, one has an identifier that the reader draws for the test split
SPAN = 256  # numbers among which a patient's identifier is looked for: that none fits has a chance of 0.8 ** 256
FOLDER = {
    "competition": "train",
    "flat": ".",
    "resized": "resized_train/resized_train",
    "cropped": "resized_train_cropped/resized_train_cropped",
}
ENDING = {"jpeg": ".jpeg", "png": ".png"}
MISSING = 0.01  # share of the images that "cropped" lacks; the real copy lacks 18 of 35,126


def identifier(phantom: EyePacsPhantom, index: int) -> str:
    """A patient's number. The reader splits by it, so it is chosen to be on the side where the patient belongs."""
    wanted = "test" if _test(phantom, index) else "train"
    numbers = [str(SPAN * index + 10 + k) for k in range(SPAN)]
    sides = drawn_split(pl.Series(numbers), EyePACS.test)
    return next(n for n, side in zip(numbers, sides, strict=True) if side == wanted)


def images_of(phantom: EyePacsPhantom, index: int) -> tuple[bool, int]:
    """Whether a patient is in the reader's test split, and the number of pictures. Draws no eye."""
    return _test(phantom, index), len(SIDES) - sum(missing(phantom, index))


def missing(phantom: EyePacsPhantom, index: int) -> list[bool]:
    """Which of a patient's pictures are not delivered, in the order of ``SIDES``."""
    if phantom.copy != "cropped":
        return [False] * len(SIDES)
    rng = generator("eyepacs missing", phantom.version, phantom.seed, index)
    return [bool(r < MISSING) for r in rng.random(len(SIDES))]


def _test(phantom: EyePacsPhantom, index: int) -> bool:
    parts = shuffled(generator("eyepacs split", phantom.version, phantom.seed, index // PARTS), PARTS)
    return bool(parts[index % PARTS] == 0)


def pictures(phantom: EyePacsPhantom, index: int, person: dict[str, Eye]) -> list[NDArray[np.uint8]]:
    """The pictures of a patient before they are compressed, uint8 [size, W, 3] each, in the order of ``SIDES``."""
    return [render(phantom.version, phantom.seed, index, phantom.size, side, person[side]) for side in SIDES]


def write(phantom: EyePacsPhantom, folder: Path, progress: Callable[[int, int], None]) -> None:
    images, rows, there = folder / FOLDER[phantom.copy], [], []
    images.mkdir(parents=True, exist_ok=True)
    for index in range(phantom.subjects):
        person, name = eyes(phantom.version, phantom.seed, index), identifier(phantom, index)
        taken = zip(SIDES, pictures(phantom, index, person), missing(phantom, index), strict=True)
        for side, pixels, lost in taken:
            rows.append((f"{name}_{side}", person[side].grade))
            if not lost:
                there.append((len(rows) - 1, *rows[-1]))
                file = images / (f"{name}_{side}" + ENDING[phantom.images])
                save(_within(pixels) if phantom.copy == "cropped" else pixels, file, phantom.images)
        progress(index + 1, phantom.subjects)
    _table(folder / "trainLabels.csv", "image,level", rows)
    if phantom.copy == "cropped":
        numbered = [(i, *row) for i, row in enumerate(there)]  # with the indices that two programs left behind
        _table(folder / "trainLabels_cropped.csv", ",Unnamed: 0,image,level", numbered)


def _within(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Without the dark borders."""
    left, top, right, bottom = bounds(Image.fromarray(pixels))
    return pixels[top:bottom, left:right]


def _table(path: Path, header: str, rows: list[Any]) -> None:
    path.write_text("\n".join([header, *(",".join(map(str, row)) for row in rows)]) + "\n")
