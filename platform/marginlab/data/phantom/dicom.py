"""Pictures as DICOM files. Whoever shows them as the standard says sees the pixels that were drawn, bit for bit."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian, RLELossless

XRAY = "1.2.840.10008.5.1.4.1.1.1.1"  # Digital X-Ray Image Storage - For Presentation
DARKEST, STEP = 600, 11  # of "dicom-12": what stands for black, and for one more grey level


def write(pixels: NDArray[np.uint8], path: Path, kind: str, person: str) -> None:
    """Write uint8 [H, W].

    ``dicom``: 8 bits. ``dicom-12``: 12 bits of which a window shows a part, on both sides of 0 after rescaling. ``dicom-16``:
    16 bits without a window. ``dicom-inverted``: MONOCHROME1. ``dicom-rle``: compressed in run lengths.
    """
    data = dataset(pixels)
    if kind == "dicom-12":  # the window goes from 2 DARKEST - 2000 to 255 levels above it
        data = dataset(DARKEST + STEP * pixels.astype(np.uint16), BitsStored=12)
        data.RescaleSlope, data.RescaleIntercept = 2, -2000
        reach = 255 * 2 * STEP
        data.WindowCenter, data.WindowWidth = f"{2 * DARKEST - 2000 + reach / 2 + 0.5}", reach + 1
    elif kind == "dicom-16":
        data = dataset(pixels.astype(np.uint16) * 257)
    elif kind == "dicom-inverted":
        data = dataset(255 - pixels, PhotometricInterpretation="MONOCHROME1")
    elif kind == "dicom-rle":
        data.compress(RLELossless, generate_instance_uid=False)
    data.PatientName, data.PatientID = f"Phantom^{person}", person
    data.SOPInstanceUID = f"2.25.{int.from_bytes(hashlib.sha256(path.name.encode()).digest()[:8], 'big')}"
    data.save_as(path, enforce_file_format=True)


def dataset(stored: NDArray[Any], syntax: UID = ExplicitVRLittleEndian, **elements: Any) -> Dataset:
    """A grey image of uint8, int8, uint16 or int16 [H, W], or RGB uint8 [H, W, 3].

    ``elements`` are added or take the place of others; None takes one out.
    """
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = syntax
    data.SOPClassUID, data.SOPInstanceUID = XRAY, "1.2.3.4"
    data.SpecificCharacterSet = "ISO_IR 192"
    data.Rows, data.Columns = stored.shape[:2]
    data.SamplesPerPixel = 3 if stored.ndim == 3 else 1
    data.PhotometricInterpretation = "RGB" if stored.ndim == 3 else "MONOCHROME2"
    if stored.ndim == 3:
        data.PlanarConfiguration = 0
    data.BitsAllocated = data.BitsStored = 8 * stored.itemsize
    data.PixelRepresentation = int(stored.dtype.kind == "i")
    big = syntax == ExplicitVRBigEndian
    data.PixelData = stored.astype(stored.dtype.newbyteorder(">" if big else "<")).tobytes()
    data["PixelData"].VR = "OB" if stored.itemsize == 1 else "OW"
    for name, content in elements.items():
        if content is None:
            delattr(data, name)
        else:
            setattr(data, name, content)
    data.HighBit = int(data.BitsStored) - 1
    return data
