"""Image files that a user names, read as ``prepare`` reads a dataset's: a folder, a file, or a list of files."""

from __future__ import annotations

import csv
import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from marginlab.data.decode import DICOM_ENDINGS, Decoder
from marginlab.data.store import INLINE
from marginlab.values import InputError

ENDINGS = (".png", ".jpg", ".jpeg", ".tif", ".tiff", *DICOM_ENDINGS)
LISTS = (".txt", ".csv")
BLOCK = 256  # images that are decoded and embedded together
_BOOL = {"": None, "1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}


@dataclass(frozen=True)
class Picture:
    """One image file: its name as the user gave it, where it is, and whether it is mirrored before it is embedded."""

    name: str
    path: Path
    flip: bool


@dataclass(frozen=True)
class Pictures:
    items: tuple[Picture, ...]
    unsided: int  # of them, taken as they are because nobody said on which side they were taken


def listed(given: str, config: dict[str, Any], flip: bool = False) -> Pictures:
    """The images that a user means.

    Args:
        given: a folder (searched through; hidden files are passed over), an image, or a list of images: a text file with one
            per line, or a .csv with the columns ``file`` and, where wanted, ``side`` (L or R) or ``flip`` (true or false).
            Names in a list are relative to its folder.
        config: the model's. Where its dataset mirrored one side (right knees), images of that side are mirrored, too.
        flip: mirror every image for which a list does not say anything.

    Raises:
        InputError: there is nothing of the kind.
    """
    place = Path(given).expanduser()
    rows: list[tuple[str, Path, bool | None]]
    if place.is_dir():
        found = sorted(p for p in place.rglob("*") if p.suffix.lower() in ENDINGS and p.is_file())
        names = [str(p.relative_to(place)) for p in found]
        shown = [n for n in names if not any(part.startswith(".") for part in Path(n).parts)]
        rows = [(os.path.join(given, n), place / n, None) for n in shown]
        if not rows:
            raise InputError(f"{given}: the folder holds no image ({', '.join(ENDINGS)}).")
    elif not place.is_file():
        raise InputError(f"{given}: there is no such folder or file.")
    elif place.suffix.lower() in LISTS:
        rows = _list(place, config)
    else:
        rows = [(given, place, None)]
    items = tuple(Picture(name, path.absolute(), flip if own is None else own) for name, path, own in rows)
    unsided = sum(own is None for _, _, own in rows) if config.get("mirrored") != [] and not flip else 0
    return Pictures(items, unsided)


def _list(place: Path, config: dict[str, Any]) -> list[tuple[str, Path, bool | None]]:
    try:
        text = place.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(f"{place}: the list is not UTF-8 text.") from None
    if place.suffix.lower() == ".txt":
        rows = [{"file": line.strip()} for line in text.splitlines() if line.strip()]
    else:
        reader = csv.DictReader(text.splitlines())
        if "file" not in (reader.fieldnames or ()):
            raise InputError(f"{place}: the column 'file' is missing; 'side' or 'flip' may stand beside it.")
        rows = [{k: (v or "").strip() for k, v in row.items() if k} for row in reader]
    if not rows:
        raise InputError(f"{place}: the list names no image.")
    out = []
    for number, row in enumerate(rows, start=1):
        try:
            out.append((row["file"], place.parent / Path(row["file"]).expanduser(), _flip(row, config)))
        except InputError as e:
            raise InputError(f"{place}, image {number}: {e}") from None
    return out


def _flip(row: dict[str, str], config: dict[str, Any]) -> bool | None:
    said, side = row.get("flip", "").lower(), row.get("side", "").upper()
    if said not in _BOOL:
        raise InputError(f"flip must be true or false, not {row['flip']!r}.")
    if _BOOL[said] is not None or not side:
        return _BOOL[said]
    if side not in ("L", "R"):
        raise InputError(f"side must be L or R, not {row['side']!r}.")
    if config.get("mirrored") is None:
        raise InputError("the model does not record which side it mirrors; use the column flip instead of side.")
    return side in config["mirrored"]


def decoded(
    pictures: tuple[Picture, ...], config: dict[str, Any], workers: int | None = None
) -> Iterator[list[np.ndarray | str]]:
    """Blocks of images in their order: uint8 [C, size, size] each, or why it cannot be read.

    workers: decoding processes, by default one per core where there are many images. They are spawned, so a script that
    asks for more than one keeps its own work below ``if __name__ == "__main__"``.
    """
    trim = bool(config.get("trim"))
    decoder = Decoder(Path("/"), int(config["size"]), int(config["channels"]), config.get("crop"), trim)
    tasks = iter([(str(p.path), p.flip) for p in pictures])
    if workers is None:
        workers = (os.cpu_count() or 1) if len(pictures) >= INLINE else 1
    with ExitStack() as stack:
        pool: Executor | None = None
        if workers > 1:
            pool = stack.enter_context(ProcessPoolExecutor(workers, mp_context=get_context("spawn")))
        ahead: deque[Iterator[np.ndarray | str]] = (
            deque()
        )  # blocks at work while one is embedded; more would fill memory
        while block := list(islice(tasks, BLOCK)):
            ahead.append(pool.map(decoder, block, chunksize=16) if pool else map(decoder, block))
            if len(ahead) > 2:
                yield list(ahead.popleft())
        for rest in ahead:
            yield list(rest)
