"""Folders that are there whole or not at all, as packed datasets are."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from marginlab.bucket.objects import files, get, hidden, in_order, put, read
from marginlab.bucket.place import key_of, told
from marginlab.bucket.single import remove
from marginlab.lock import locked

if TYPE_CHECKING:
    from pyarrow.fs import S3FileSystem

Progress = Callable[[int, int], None]  # (bytes done, bytes in all)


def fetch_whole(folder: Path, witness: str, progress: Progress = lambda done, total: None) -> bool:
    """Have here what was sent of a folder that is there whole or not at all. False where none was sent, and elsewhere.

    Args:
        witness: a file in it that tells its content, such as fingerprints; it is sent last, and taken back first.
    """
    key = key_of(folder)
    if key is None:
        return False
    with told(key) as fs, locked(folder.with_name(f".{folder.name}.fetching"), wait=True):
        while (content := read(fs, f"{key}/{witness}")) is not None:
            if (folder / witness).exists() and (folder / witness).read_bytes() == content:
                return True
            partial = folder.with_name(f".{folder.name}.fetched")
            shutil.rmtree(partial, ignore_errors=True)
            _get_all(fs, key, partial, progress)
            if (partial / witness).read_bytes() == read(fs, f"{key}/{witness}"):  # else it was replaced meanwhile
                shutil.rmtree(folder, ignore_errors=True)
                partial.rename(folder)
                return True
    return False


def witnesses(parent: Path, witness: str) -> dict[str, bytes]:
    """What was sent of such folders below one: the contents of their witnesses, by the folders' names."""
    key = key_of(parent)
    if key is None:
        return {}
    with told(key) as fs:
        found = [name for name in files(fs, key) if name.count("/") == 1 and name.endswith(f"/{witness}")]
        return {name.partition("/")[0]: read(fs, f"{key}/{name}") or b"{}" for name in found}


def send_whole(folder: Path, witness: str, progress: Progress = lambda done, total: None) -> None:
    """Send all of such a folder in the place of what was sent before."""
    key = key_of(folder)
    if key is None:
        return
    with told(key) as fs:
        remove(folder / witness)
        paths = sorted(
            (p for p in folder.iterdir() if p.is_file() and not hidden(p.name)), key=lambda p: p.name == witness
        )
        done, total = 0, sum(p.stat().st_size for p in paths)
        for path in paths:
            put(fs, path, f"{key}/{path.name}")
            progress(done := done + path.stat().st_size, total)


def _get_all(fs: S3FileSystem, key: str, folder: Path, progress: Progress) -> None:
    found = files(fs, key)
    done, total = 0, sum(int(i.size) for i in found.values())
    for name in in_order(found):
        get(fs, f"{key}/{name}", folder / name, final=True)
        progress(done := done + int(found[name].size), total)
