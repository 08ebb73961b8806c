"""The one image of a DICOM file in 8 bits, read by pydicom.

As the standard says (PS3.3 C.11): stored values go through the modality transform (rescale slope and intercept, or its
table), then through the VOI table or window, the first where there are several. Without either, black to white is all that
the stored bits can say, as in a 16-bit PNG. MONOCHROME1, whose smallest value is white, is inverted.

Only the elements of the image are read, so a patient's name never gets into memory; what pydicom warns of is not shown,
because it quotes values.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image
from pydicom import Dataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.filereader import read_file_meta_info
from pydicom.multival import MultiValue
from pydicom.pixels.utils import pixel_array
from pydicom.uid import (
    JPEG2000,
    UID,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    RLELossless,
)

from marginlab.data.decode import Unreadable

# How pixels may be stored, and who decodes them: always the same, so that another package installed changes no pixel.
DECODERS = {
    **dict.fromkeys((ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian), ""),
    RLELossless: "pydicom",
    **dict.fromkeys((JPEGBaseline8Bit, JPEG2000Lossless, JPEG2000), "pillow"),
}
GREY, COLOUR = ("MONOCHROME2", "MONOCHROME1"), ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_RCT", "YBR_ICT")
D = TypeVar("D", float, None)
TAGS = [
    *("Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration", "NumberOfFrames"),
    *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "RescaleSlope", "RescaleIntercept"),
    *("ModalityLUTSequence", "VOILUTSequence", "WindowCenter", "WindowWidth", "VOILUTFunction"),
    *("PixelData", "FloatPixelData", "DoubleFloatPixelData"),
]
LATER = 1 << 20  # bytes: a longer element, such as the pixels, is not read before the header has been looked at
BESIDE = 1 << 26  # bytes that a file may have beyond twice its pixels


def picture(file: Path) -> Image.Image:
    """Mode L or RGB. ``Unreadable`` says why there is none, naming neither the file nor anything in it."""
    with _silent():
        data = _header(file)
        colour = _checked(data, file.stat().st_size)
        pixels = pixel_array(data, decoding_plugin=DECODERS[data.file_meta.TransferSyntaxUID])
        if not colour:
            pixels = pixels.astype(pixels.dtype.newbyteorder("="), copy=False)
            plain = np.dtype(f"u{pixels.itemsize}")
            stored = np.arange(2 ** (8 * pixels.itemsize)).astype(plain).view(pixels.dtype)
            shades = _shades(stored.astype(np.int64), data)  # at most 65,536 values, each worked out once
            pixels = shades[pixels.view(plain)]
    return Image.fromarray(pixels)


@contextmanager
def _silent() -> Iterator[None]:
    log = logging.getLogger("pydicom")
    level = log.level
    log.setLevel(logging.CRITICAL + 1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            yield
    finally:
        log.setLevel(level)


def _header(file: Path) -> Dataset:
    """The elements of the image; long ones are read when they are asked for."""
    with open(file, "rb") as opened:
        bare = opened.read(132)[128:] != b"DICM"
    # Asked before the rest is looked at: of a deflated file the rest would be inflated first, to whatever size.
    syntax = None if bare else read_file_meta_info(file).get("TransferSyntaxUID")
    if syntax is not None and syntax not in DECODERS:
        name = UID(syntax).name  # the identifier itself where it is in no list, and that may be a hospital's own
        name = name if name != syntax else "no transfer syntax of the standard"
        raise Unreadable(f"the DICOM file is stored as {name}; decompress it first")
    data = dcmread(file, defer_size=LATER, force=bare, specific_tags=TAGS)
    if syntax is None:
        implicit, little = data.original_encoding
        data.file_meta = FileMetaDataset()
        explicit = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
        data.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else explicit
    return data


def _checked(data: Dataset, size: int) -> bool:
    """Refuse what is no single image of 8 to 16 bits, before anything is allocated. Whether it is in colour."""
    if "FloatPixelData" in data or "DoubleFloatPixelData" in data:
        raise Unreadable("the image holds floating-point pixels; use 8 or 16 bits")
    if "PixelData" not in data:
        raise Unreadable("the DICOM file holds no image")
    if int(data.get("NumberOfFrames") or 1) > 1:
        raise Unreadable("the DICOM file holds more than one image; give each a file of its own")
    kind, samples = data.PhotometricInterpretation, int(data.SamplesPerPixel)
    if (kind, samples) not in [*((k, 1) for k in GREY), *((k, 3) for k in COLOUR)]:
        raise Unreadable("the DICOM image is neither grey nor RGB nor YBR")
    if data.BitsAllocated not in (8, 16) or not 1 <= data.BitsStored <= data.BitsAllocated:
        raise Unreadable("the DICOM image has another depth than 8 to 16 bits")
    if samples == 3 and (data.BitsAllocated, data.PixelRepresentation) != (8, 0):
        raise Unreadable("the DICOM image has colours of another depth than 8 bits")
    pixels = int(data.Rows) * int(data.Columns)
    if Image.MAX_IMAGE_PIXELS and pixels > Image.MAX_IMAGE_PIXELS:
        raise Unreadable(f"the image has more than {Image.MAX_IMAGE_PIXELS} pixels")
    if size > 2 * pixels * samples * data.BitsAllocated // 8 + BESIDE:
        raise Unreadable("the DICOM file is far larger than its image")
    return samples == 3


def _shades(stored: np.ndarray, data: Dataset) -> np.ndarray:
    """uint8 [V]: how bright each of the stored values int64 [V] is shown."""
    bits = int(data.BitsStored)
    least = -(2 ** (bits - 1)) if data.PixelRepresentation else 0
    reach = np.array([least, least + 2**bits - 1], dtype=np.float64)
    if data.get("ModalityLUTSequence"):
        values, reach = _looked_up(stored, data.ModalityLUTSequence[0], data)
    else:
        slope, intercept = _number(data, "RescaleSlope", 1.0), _number(data, "RescaleIntercept", 0.0)
        values, reach = stored * slope + intercept, np.sort(reach * slope + intercept)
    centre, width = _number(data, "WindowCenter", None), _number(data, "WindowWidth", None)
    if data.get("VOILUTSequence"):
        values, reach = _looked_up(values, data.VOILUTSequence[0], data)
    elif centre is not None and width is not None:
        values, reach = _windowed(values, centre, width, data.get("VOILUTFunction") or "LINEAR"), np.array([0.0, 1.0])
    bright = np.clip((values - reach[0]) / (reach[1] - reach[0]), 0, 1)
    if not np.isfinite(bright).all():
        raise Unreadable("the DICOM file has a rescale slope of 0, or numbers that are not finite")
    if data.PhotometricInterpretation == "MONOCHROME1":
        bright = 1 - bright
    return np.asarray(np.floor(255 * bright + 0.5), dtype=np.uint8)


def _number(data: Dataset, name: str, default: D) -> float | D:
    """An element's first value; the default where there is none."""
    value = data.get(name)
    first = value[0] if isinstance(value, MultiValue) and value else value
    return float(first) if first or first == 0 else default


def _windowed(values: np.ndarray, centre: float, width: float, function: str) -> np.ndarray:
    """Values to 0..1, PS3.3 C.11.2.1.2 and C.11.2.1.3."""
    if not width >= (1 if function == "LINEAR" else np.nextafter(0, 1)):
        raise Unreadable("the DICOM file has a window without width")
    if function == "LINEAR":  # its ends are the values in the middle of the first and the last step
        centre, width = centre - 0.5, width - 1
    if function == "SIGMOID":
        return np.asarray(1 / (1 + np.exp(-4 * (values - centre) / width)))
    if function not in ("LINEAR", "LINEAR_EXACT"):
        raise Unreadable("the DICOM file has a window of an unknown kind")
    if width == 0:
        return np.asarray(values > centre, dtype=np.float64)
    return np.clip((values - centre) / width + 0.5, 0, 1)


def _looked_up(values: np.ndarray, table: Dataset, data: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Values through a table of the standard (PS3.3 C.11.1.1.1), and the range of its entries."""
    count, first, bits = (int(n) for n in table.LUTDescriptor)
    count = count or 2**16
    entries = table.LUTData
    if isinstance(entries, bytes):  # words, or bytes where there are just as many
        word = ">u2" if data.file_meta.TransferSyntaxUID == ExplicitVRBigEndian else "<u2"
        entries = np.frombuffer(entries, np.uint8 if len(entries) in (count, count + 1) else word)
    entries = np.atleast_1d(np.asarray(entries, dtype=np.float64))
    if len(entries) < count or not 8 <= bits <= 16:
        raise Unreadable("the DICOM file has a table of grey levels that is cut short, or not of 8 to 16 bits")
    place = np.clip(np.floor(values) - first, 0, count - 1).astype(np.int64)
    return entries[place], np.array([0.0, 2.0**bits - 1])
