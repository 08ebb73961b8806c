"""Check sums of a packed dataset: more than its fingerprint covers, and by blocks, so that damage can be found."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Callable
from typing import Any, cast

import numpy as np
import polars as pl

from marginlab.data import manifest as mf

ROWS = 1024  # images: a block
NAMES = ("subject", "label")  # columns that hold pseudonyms


class Reading:
    """The pixels, for :func:`marginlab.data.manifest.dataset_fingerprint` to read once from front to back; what is seen then."""

    def __init__(self, pixels: np.ndarray, progress: Callable[[int, int], None] | None = None) -> None:
        self.pixels, self.shape, self.progress = pixels, pixels.shape, progress
        self.crc = np.zeros(len(pixels), "<u4")  # of each image
        self.constant = np.zeros(len(pixels), bool)  # one colour in every channel

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, rows: slice) -> np.ndarray:
        images = self.pixels[rows]
        for i, image in enumerate(images, rows.start):
            self.crc[i] = zlib.crc32(np.ascontiguousarray(image).data)
        first = images[:, :, :1, :1]
        same = images[:, :, ::7, ::7] == first  # most images are seen to be none in a few pixels
        for near in np.flatnonzero(same.all(axis=(1, 2, 3))):
            self.constant[rows.start + near] = bool((images[near] == first[near]).all())
        if self.progress is not None:
            self.progress(rows.start + len(images), len(self))
        return images

    def fingerprint(self, manifest: pl.DataFrame, mean: tuple[float, ...], std: tuple[float, ...]) -> str:
        return mf.dataset_fingerprint(cast(np.ndarray, self), manifest, mean, std)

    def blocks(self) -> list[str]:
        """Per ``ROWS`` images: the CRC-32 of their CRC-32s (little-endian uint32), in hexadecimal."""
        return [f"{zlib.crc32(self.crc[i : i + ROWS].tobytes()):08x}" for i in range(0, len(self), ROWS)]


def of_manifest(manifest: pl.DataFrame) -> str:
    """A digest of all columns. Pseudonyms count only by which rows share one, as in the fingerprint."""
    digest = hashlib.sha256()
    for name in mf.SCHEMA:
        column = manifest[name]
        values: list[Any] = mf.codes(column).tolist() if name in NAMES else column.to_list()
        digest.update(json.dumps([name, values]).encode())
    return digest.hexdigest()[:16]


def checks(reading: Reading, manifest: pl.DataFrame) -> dict[str, Any]:
    """What ``dataset.json`` keeps, after the fingerprint has been taken."""
    return {"rows": ROWS, "images": reading.blocks(), "manifest": of_manifest(manifest)}
