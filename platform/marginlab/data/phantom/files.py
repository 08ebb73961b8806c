"""A picture as a file of every kind that is delivered. All but JPEG keep every pixel."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

ENDINGS = {  # of grey pictures
    "png": ".png",
    "jpeg": ".jpg",
    "tiff": ".tif",
    "tiff-16": ".tif",  # 16 bits: 255 becomes 65535
    "dicom": ".dcm",  # 8 bits; the others are described in dicom.py
    "dicom-12": ".dcm",
    "dicom-16": ".dcm",
    "dicom-inverted": ".dcm",
    "dicom-rle": ".dcm",
}
QUALITY = 95  # of JPEGs, colour at full resolution: small red lesions survive


def save(pixels: NDArray[np.uint8], path: Path, kind: str, person: str = "") -> None:
    """Write ``pixels``, uint8 [H, W] or [H, W, 3 or 4]. ``person``: whose name a DICOM file carries."""
    if kind.startswith("dicom"):
        from marginlab.data.phantom.dicom import write  # pydicom takes a moment to import

        write(pixels, path, kind, person)
    elif kind == "png":
        Image.fromarray(pixels).save(path, compress_level=1)
    elif kind == "jpeg":
        Image.fromarray(pixels).save(path, quality=QUALITY, subsampling=0)
    else:
        Image.fromarray(pixels.astype(np.uint16) * 257 if kind == "tiff-16" else pixels).save(path, "TIFF")
