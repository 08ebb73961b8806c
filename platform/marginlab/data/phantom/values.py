"""What is drawn, as values. A phantom is the same wherever and whenever it is drawn; its ``version`` stands for every parameter."""

from __future__ import annotations

from typing import ClassVar

from marginlab.values import InputError, value

VERSION = 1


@value
class OaiPhantom:
    """Knees of people seen over eight years, laid out like the Osteoarthritis Initiative.

    By default about 820 images train, 200 validate and 250 test, small enough for a study on a laptop. 70 stored pixels
    leave a crop of 64 as much room to move as the published 280 leave to 256.
    """

    channels: ClassVar[int] = 1
    subjects: int = 200
    size: int = 70  # pixels per side, as written
    seed: int = 0
    version: int = VERSION

    def check(self) -> None:
        check(self)


@value
class Cxr14Phantom:
    """Chests of patients seen over up to twelve years, laid out like ChestX-ray14. By default as many images as the knees."""

    channels: ClassVar[int] = 1
    subjects: int = 225
    size: int = 70  # pixels per side, as written
    seed: int = 0
    version: int = VERSION

    def check(self) -> None:
        check(self)


@value
class EyePacsPhantom:
    """Fundus photographs of both eyes of patients, laid out like EyePACS; the lesions that are drawn make the grade.

    Nobody is seen twice. The grades have about the real set's shares, 73, 7, 15, 2.5 and 2 of a hundred, and of each fifty
    patients at least one has each. JPEGs come out the same only where the JPEG library is the same.
    """

    channels: ClassVar[int] = 3
    subjects: int = 300
    size: int = 96  # pixels from top to bottom, as written; a picture is a third wider than high
    seed: int = 0
    version: int = VERSION

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
