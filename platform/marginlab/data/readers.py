"""The readers that ship, by the name they have on the command line."""

from __future__ import annotations

from marginlab.data.cxr14 import CXR14
from marginlab.data.eyepacs import EyePACS, EyePACSByImage
from marginlab.data.oai import OAI
from marginlab.data.raw import Reader
from marginlab.values import InputError

READERS: dict[str, Reader] = {
    "oai": OAI(),
    "cxr14": CXR14(),
    "eyepacs": EyePACS(),
    "eyepacs-by-image": EyePACSByImage(),  # as published; it leaks
}


def reader(name: str) -> Reader:
    if name not in READERS:
        raise InputError(f"There is no reader {name!r}; those that ship are {', '.join(READERS)}.")
    return READERS[name]
