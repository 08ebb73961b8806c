"""Objects and files, one by one and in lists: put, got, compared. Everything here takes an open file system."""

from __future__ import annotations

import os
import shutil
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyarrow.fs import FileInfo, S3FileSystem

LAST = ("result.json", "dataset.json")  # whoever sees it sees all that was sent before it
_SETTLED_S = 60.0  # S3 has times in whole seconds: what changed just now may have changed twice
_PIECE = 8 << 20  # bytes


def put(fs: S3FileSystem, path: Path, key: str) -> None:
    with path.open("rb") as f, fs.open_output_stream(key) as out:
        shutil.copyfileobj(f, out, _PIECE)
    note(path, fs.get_file_info(key))


def files(fs: S3FileSystem, key: str, everything: bool = False) -> dict[str, FileInfo]:
    """Files below a key, by their names relative to it; without hidden ones, unless these are asked for (``everything``)."""
    from pyarrow.fs import FileSelector

    found = fs.get_file_info(FileSelector(key, recursive=True, allow_not_found=True))
    names = {i.path[len(key) + 1 :]: i for i in found if i.is_file}
    return {name: i for name, i in names.items() if everything or not hidden(name)}


def in_order(found: dict[str, FileInfo]) -> list[str]:
    return sorted(found, key=lambda name: (name.rpartition("/")[2] in LAST, name))


def read(fs: S3FileSystem, key: str) -> bytes | None:
    if not fs.get_file_info(key).is_file:
        return None
    with fs.open_input_stream(key) as f:
        return bytes(f.read())


def get(fs: S3FileSystem, key: str, path: Path, final: bool = False) -> None:
    """A file, whole or not at all, with the time of what was fetched, unless that may still change within its second.

    Args:
        final: it does not change any more.
    """
    info = fs.get_file_info(key)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.fetched")
    try:
        with fs.open_input_stream(key) as f, temporary.open("wb") as out:
            shutil.copyfileobj(f, out, _PIECE)
        if final or abs(time.time() - info.mtime.timestamp()) > _SETTLED_S:
            note(temporary, info)
        temporary.replace(path)
    except FileNotFoundError:  # taken back since it was listed
        return
    finally:
        temporary.unlink(missing_ok=True)


def note(path: Path, info: FileInfo) -> None:
    """This file is that object: remembered as its time."""
    os.utime(path, ns=(info.mtime_ns, info.mtime_ns))


def in_step(path: Path, info: FileInfo) -> bool:
    try:
        own = path.stat()
    except FileNotFoundError:
        return False
    return own.st_size == int(info.size) and own.st_mtime_ns == int(info.mtime_ns)


def hidden(name: str) -> bool:
    return any(part.startswith(".") for part in name.split("/"))
