"""One image file to uint8 pixels. Pillow and numpy alone, so that a decoding process starts quickly; pydicom where needed."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import reduce
from pathlib import Path

import numpy as np
from PIL import Image, ImageChops, UnidentifiedImageError

FORMATS = ("PNG", "JPEG", "TIFF")
DICOM_ENDINGS = (".dcm", ".dicom")
OLD_DICOM = b"\x08\x00"  # how files without a preamble begin, which are older than it; their ending has to say so, too
DARK = 16  # of 255: a pixel whose brightest channel is no brighter belongs to the border
SPECKS = 0.01  # share of a column's or row's pixels that may be brighter by noise, dust or compression


@dataclass(frozen=True)
class Decoder:
    """What is done with every image: trim, crop, resize, grey or colour."""

    root: Path
    size: int
    channels: int
    crop: int | None
    trim: bool = False

    def __call__(self, task: tuple[str, bool]) -> np.ndarray | str:
        """``task``: path relative to root, and whether to mirror. uint8 [C, size, size], or why it cannot be read.

        The reason names no file: it is published with the dataset.
        """
        path, flip = task
        try:
            file = (self.root / path).resolve()
            if not file.is_relative_to(self.root.resolve()):
                return "the path points outside the raw folder"
            if not file.is_file():
                return "the file does not exist"
            if file.stat().st_size == 0:
                return "the file is empty"
        except (OSError, RuntimeError, ValueError):  # too long, a link to itself, characters that no name may have
            return "the path leads nowhere, or into a folder that may not be read"
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", Image.DecompressionBombWarning)
                with _opened(file) as image:
                    pixels = self._pixels(image)
        except (Image.DecompressionBombError, Image.DecompressionBombWarning):
            return f"the image has more than {Image.MAX_IMAGE_PIXELS} pixels"
        except UnidentifiedImageError:
            return f"the file is no {', '.join(FORMATS)} or DICOM image"
        except PermissionError:
            return "the file may not be read"
        except Unreadable as e:
            return str(e)
        except Exception as e:  # a damaged file can raise anything in its decoder; the next image does not care
            return f"the image is truncated or damaged ({type(e).__name__})"
        return np.ascontiguousarray(pixels[:, :, ::-1] if flip else pixels)

    def _pixels(self, image: Image.Image) -> np.ndarray:
        image, mode = eight_bit(image), "L" if self.channels == 1 else "RGB"
        image = image if image.mode == mode else image.convert(mode)  # which copies, even to the same mode
        image = trimmed(image) if self.trim else image
        side = self.crop
        if side and min(image.size) >= side:
            left, top = (image.width - side) // 2, (image.height - side) // 2
            image = image.crop((left, top, left + side, top + side))
        image = image.resize((self.size, self.size), Image.Resampling.BILINEAR)  # averages where it shrinks
        pixels = np.asarray(image)
        return pixels[None] if self.channels == 1 else pixels.transpose(2, 0, 1)


class Unreadable(Exception):
    """Why an image cannot be used, without its name."""


def _opened(file: Path) -> Image.Image:
    """By content: what a file is called does not matter."""
    with open(file, "rb") as opened:
        head = opened.read(132)
    if head[128:] == b"DICM" or (head[:2] == OLD_DICOM and file.suffix.lower() in DICOM_ENDINGS):
        from marginlab.data.dicom import picture  # pydicom takes a while to import

        return picture(file)
    return Image.open(file, formats=FORMATS)


def trimmed(image: Image.Image) -> Image.Image:
    """What is left without the dark borders, in the middle of a black square of its longer side: what is round stays round."""
    left, top, right, bottom = bounds(image)
    width, height = right - left, bottom - top
    side = max(width, height)
    square = Image.new(image.mode, (side, side))
    square.paste(image.crop((left, top, right, bottom)), ((side - width) // 2, (side - height) // 2))
    return square


def bounds(image: Image.Image) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of what lies within dark borders, in pixels; the last two are the first outside.

    It is the bounding box of the columns and rows in which more than ``SPECKS`` of the pixels are brighter than ``DARK``.
    """
    bright = np.asarray(reduce(ImageChops.lighter, image.split())) > DARK
    columns, rows = (np.flatnonzero(np.count_nonzero(bright, axis=a) > SPECKS * bright.shape[a]) for a in (0, 1))
    if not len(columns) or not len(rows):
        raise Unreadable(f"the image is black: hardly a pixel is brighter than {DARK} of 255")
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def eight_bit(image: Image.Image) -> Image.Image:
    """The image in 8 bits per channel, alpha dropped. 16-bit grey is divided by 257 and rounded: 65535 becomes 255.

    Colour becomes grey later by Pillow's "L", 0.299 R + 0.587 G + 0.114 B.
    """
    if image.mode.startswith("I"):
        deep = np.asarray(image).astype(np.int64)
        if deep.min() < 0 or deep.max() > 65535:
            raise Unreadable("the image has more than 16 bits per pixel")
        return Image.fromarray(((deep + 128) // 257).astype(np.uint8))
    if image.mode == "F":
        raise Unreadable("the image holds floating-point pixels; use 8 or 16 bits")
    return image.convert("L" if image.mode in ("1", "L", "LA", "La") else "RGB")
