"""What is drawn, as values. A phantom is the same wherever and whenever it is drawn; its ``version`` stands for every parameter.

In which form its files come is said by the last fields, named in ``forms`` with what each may be. The subjects and their
pictures are the same in every form, and all forms but JPEGs keep every pixel.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import ClassVar, TypeVar

from marginlab.values import InputError, later, value

VERSION = 1
P = TypeVar("P", bound="OaiPhantom | Cxr14Phantom | EyePacsPhantom")


@value
class OaiPhantom:
    """Knees of people seen over eight years, laid out like the Osteoarthritis Initiative.

    By default about 820 images train, 200 validate and 250 test, small enough for a study on a laptop. 70 stored pixels
    leave a crop of 64 as much room to move as the published 280 leave to 256.
    """

    channels: ClassVar[int] = 1
    forms: ClassVar[dict[str, tuple[str, ...]]] = {
        "tables": ("txt", "csv", "ascii"),
        "images": (
            *("png", "jpeg", "tiff", "tiff-16", "dicom", "dicom-12", "dicom-16"),
            *("dicom-inverted", "dicom-rle"),
        ),
    }
    subjects: int = 200
    size: int = 70  # pixels per side, as written
    seed: int = 0
    version: int = VERSION
    tables: str = later(default="txt")  # layout_oai.py
    images: str = later(default="png")  # files.py

    def check(self) -> None:
        check(self)


@value
class Cxr14Phantom:
    """Chests of patients seen over up to twelve years, laid out like ChestX-ray14. By default as many images as the knees."""

    channels: ClassVar[int] = 1
    forms: ClassVar[dict[str, tuple[str, ...]]] = {
        "table": ("2020", "2017", "2017-units"),
        "folders": ("nested", "twelve", "one"),
    }
    subjects: int = 225
    size: int = 70  # pixels per side, as written
    seed: int = 0
    version: int = VERSION
    table: str = later(default="2020")  # layout_cxr14.py, both
    folders: str = later(default="nested")

    def check(self) -> None:
        check(self)


@value
class EyePacsPhantom:
    """Fundus photographs of both eyes of patients, laid out like EyePACS; the lesions that are drawn make the grade.

    Nobody is seen twice. The grades have about the real set's shares, 73, 7, 15, 2.5 and 2 of a hundred, and of each fifty
    patients at least one has each. JPEGs come out the same only where the JPEG library is the same.
    """

    channels: ClassVar[int] = 3
    forms: ClassVar[dict[str, tuple[str, ...]]] = {
        "copy": ("competition", "flat", "resized", "cropped"),
        "images": ("jpeg", "png"),
    }
    subjects: int = 300
    size: int = 96  # pixels from top to bottom, borders included; a picture is a third wider than high
    seed: int = 0
    version: int = VERSION
    copy: str = later(default="competition")  # layout_eyepacs.py
    images: str = later(default="jpeg")

    def check(self) -> None:
        check(self)


def check(phantom: OaiPhantom | Cxr14Phantom | EyePacsPhantom) -> None:
    name = type(phantom).__name__
    for field, low, high in (("subjects", 1, 900_000), ("size", 32, 4096), ("seed", 0, 2**63 - 1)):
        given = getattr(phantom, field)
        if not low <= given <= high:
            raise InputError(f"{name}.{field} must be from {low} to {high}, not {given}.")
    if phantom.version != VERSION:
        raise InputError(
            f"{name}: this MarginLab draws version {VERSION}, not {phantom.version}: leave version out, or install the "
            "release that drew it."
        )
    for field, names in phantom.forms.items():
        if getattr(phantom, field) not in names:
            raise InputError(f"{name}.{field} must be one of {', '.join(names)}, not {getattr(phantom, field)!r}.")


def delivered(phantom: P, words: Iterable[str]) -> P:
    """The phantom in other forms, each given by its own word (``csv``, ``dicom-rle``): at most one per field of ``forms``."""
    chosen: dict[str, str] = {}
    for word in words:
        field = next((f for f, names in phantom.forms.items() if word in names), None)
        if field is None:
            raise InputError(f"There is no delivery {word!r} of this phantom; there are {deliveries(phantom)}.")
        if field in chosen:
            raise InputError(
                f"The deliveries {chosen[field]!r} and {word!r} are both about its {field}: give one of them."
            )
        chosen[field] = word
    return dataclasses.replace(phantom, **chosen)  # type: ignore[arg-type]


def deliveries(phantom: OaiPhantom | Cxr14Phantom | EyePacsPhantom) -> str:
    """What its files may be like, the usual form first: "tables txt, csv or ascii; images png, ..."."""
    return "; ".join(f"{field} {', '.join(names[:-1])} or {names[-1]}" for field, names in phantom.forms.items())
