"""A prepared dataset to which images are added: what is taken over from it, and how the larger one takes its place."""

from __future__ import annotations

import shutil
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from marginlab.data.packed import PackedDataset
from marginlab.data.partial import Kept, Pool
from marginlab.data.private import key_of, read_private
from marginlab.values import InputError

SAME = ("name", "reader", "label", "size")  # of dataset.json: with another one it is another dataset


@dataclass(frozen=True)
class Before:
    """What a dataset hands on to the larger one."""

    key: bytes | None = None  # of its pseudonyms
    pool: Pool | None = None  # its images; empty where it was prepared before images had keys


def before(out: Path, secret: Path, info: dict[str, Any], paths: Collection[str]) -> Before:
    """Of the dataset ``out``, whose private file is in ``secret``. info, paths: of the one that replaces it.

    Nothing may get lost by adding: an image of the old one that the new one would not have is refused.
    """
    old = PackedDataset.open(out)
    for name in SAME:
        if old.info.get(name) != info[name]:
            raise InputError(
                f"{out}: the {name} of this dataset is {old.info.get(name)!r}, not {info[name]!r}: images are added to one and "
                "the same dataset; prepare into another folder."
            )
    file = secret / f"{old.fingerprint}.json"
    if not file.is_file():
        raise InputError(
            f"{file}: the private file of this dataset is not there, so new images could not get pseudonyms that fit the old "
            "ones: add them where it was prepared, or remove the dataset and prepare it again."
        )
    kept = read_private(file)
    gone = sorted(set(kept["files"]).difference(paths))
    if gone:
        raise InputError(
            f"{out}: {len(gone)} images of this dataset are no longer among the records of the raw folder ({gone[0]} first), "
            "and adding must lose none: restore them, or remove the dataset and prepare it again."
        )
    made = zip(kept.get("keys", ()), kept.get("crc", ()), strict=True)
    pool = {bytes.fromhex(key): Kept(old.pixels, row, crc) for row, (key, crc) in enumerate(made)}
    return Before(key_of(file), pool)


def is_there(out: Path) -> bool:
    return out.exists() and (not out.is_dir() or any(out.iterdir()))


def become(folder: Path, out: Path) -> None:
    """``folder`` takes the place of ``out``. Killed in between, ``out`` is still there, or :func:`restore` brings it back."""
    old = _aside(out)
    if is_there(out):
        out.rename(old)
    folder.rename(out)
    shutil.rmtree(old, ignore_errors=True)


def restore(out: Path) -> None:
    """Tidy up after a kill in :func:`become`. Only for who holds the lock of ``out``."""
    if _aside(out).exists():
        if is_there(out):
            shutil.rmtree(_aside(out))
        else:
            _aside(out).rename(out)


def _aside(out: Path) -> Path:
    return out.with_name(f".{out.name}.before")
