"""What is decoded so far. A ``prepare`` that is killed leaves it beside the dataset that it makes, and the next carries on.

``.<out>.partial/<id>/`` is named after all that decides its pixels: the files in their order, how they are decoded. In it
are ``keys`` (16 bytes per record: what decides that image), ``images.npy`` (every record at its place) and ``done.log``
(a line per chunk: what was decoded, with a check sum per image). A line is written after its pixels, and pixels count only
where their check sum fits: nothing has to be on the disk in any order. If files change between two tries, what did not
change is taken over, and so is what is left of the dataset that is added to.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import time
import zlib
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from itertools import groupby
from pathlib import Path

import numpy as np
import PIL

from marginlab.data.decode import Decoder
from marginlab.data.decoding import Decoded, Task
from marginlab.files import write_bytes
from marginlab.lock import held
from marginlab.values import InputError

DECODING = 1  # raised when decode.py makes other pixels of the same file: what is kept of before is then decoded again
CHUNK = 16  # images: what a process decodes at a time
SYNC_S = 5.0  # at most so much is lost when the power goes; a kill loses what is being decoded
PLAIN = (".png", ".jpg", ".jpeg", ".tif", ".tiff")  # other files may be DICOM, which pydicom reads
COPIED = 256  # images at a time
KEY = 16  # bytes


@dataclasses.dataclass(frozen=True)
class Kept:
    """An image that was decoded before."""

    pixels: np.ndarray  # uint8 [N, C, size, size], memory-mapped
    row: int
    crc: int  # of its pixels


Pool = Mapping[bytes, Kept]  # by key


def keys_of(decoder: Decoder, tasks: Sequence[Task], secret: bytes) -> list[bytes]:
    """A digest per image of what decides its pixels: its file, mirroring, decoder, Pillow's version (and pydicom's).

    A file is its path, size and time of change; its bytes are not read. Without the secret nobody can tell which file it is
    by trying names: the digests lie in the workspace as long as decoding takes.
    """
    how = {f.name: getattr(decoder, f.name) for f in dataclasses.fields(decoder) if f.name != "root"}
    start = hashlib.blake2b(
        json.dumps([DECODING, PIL.__version__, how], default=str).encode(), digest_size=KEY, key=secret
    )
    dicom = metadata.version("pydicom")
    keys = []
    for path, flip in tasks:
        try:
            seen = os.stat(decoder.root / path)
            stamp = [seen.st_size, seen.st_mtime_ns]
        except (OSError, ValueError):
            stamp = []
        digest = start.copy()
        library = [] if path.lower().endswith(PLAIN) else [dicom]
        digest.update(json.dumps([path, flip, stamp, library]).encode())
        keys.append(digest.digest())
    return keys


class Partial:
    """The images of ``keys``, some of which are decoded. shape: of one image, (C, size, size)."""

    def __init__(
        self, folder: Path, keys: Sequence[bytes], shape: tuple[int, int, int], pool: Pool | None = None
    ) -> None:
        self.keys, self.shape = keys, shape
        self.lost: dict[int, str] = {}  # by record: why it could not be read
        name = hashlib.blake2b(b"".join(keys), digest_size=KEY).hexdigest()
        self.parent, self.folder = folder, folder / name
        folder.mkdir(parents=True, exist_ok=True)
        self.packed = self.folder / "packed"  # what becomes the dataset
        _begin(self.folder, keys, shape)
        self._images = os.open(self.folder / "images.npy", os.O_RDWR)
        self._start = os.fstat(self._images).st_size - len(keys) * self._bytes
        self._log = os.open(self.folder / "done.log", os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
        self._synced = time.monotonic()
        if os.pread(self._log, 1, max(0, os.fstat(self._log).st_size - 1)) not in (b"", b"\n"):
            os.write(self._log, b"\n")  # ends a line that was cut short
        self.done = np.zeros(len(keys), bool)
        for record, (_, kept) in _kept(self.folder).items():
            self.done[record] = _crc(kept.pixels[kept.row]) == kept.crc
        self._take({**self._others(), **(pool or {})})

    @property
    def _bytes(self) -> int:
        return int(np.prod(self.shape))

    def pending(self) -> list[range]:
        """The records that are not decoded, in chunks of neighbours. What could not be read is tried again."""
        left = np.flatnonzero(~self.done)
        runs = np.split(left, np.flatnonzero(np.diff(left) > 1) + 1)
        return [
            range(int(run[i]), int(run[min(i + CHUNK, len(run)) - 1]) + 1)
            for run in runs
            for i in range(0, len(run), CHUNK)
        ]

    def write(self, start: int, chunk: Decoded) -> None:
        """The images of the records from ``start`` on."""
        _write_all(self._images, chunk.pixels.data.cast("B"), self._start + start * self._bytes)
        made = [chunk.lost.get(i, _crc(image)) for i, image in enumerate(chunk.pixels)]
        text = json.dumps([start, made])
        os.write(self._log, f"{zlib.crc32(text.encode()):08x} {text}\n".encode())
        for i, crc in enumerate(made):
            if isinstance(crc, str):
                self.lost[start + i] = crc
            else:
                self.done[start + i] = True
        if time.monotonic() > self._synced + SYNC_S:
            self._sync()

    def finish(self) -> Path:
        """``packed`` with the images that could be read, one after another, in ``images.npy``."""
        self._sync()
        self.packed.mkdir()
        images, out = self.folder / "images.npy", self.packed / "images.npy"
        if not self.lost:
            images.rename(out)
            return self.packed
        pixels, kept = np.load(images, mmap_mode="r"), np.flatnonzero(self.done)
        with open(out, "wb") as file:
            _write_header(file.fileno(), (len(kept), *self.shape))
            for i in range(0, len(kept), COPIED):
                file.write(pixels[kept[i : i + COPIED]].tobytes())
        return self.packed

    def close(self) -> None:
        os.close(self._images)
        os.close(self._log)

    def _sync(self) -> None:
        os.fsync(self._images)
        os.fsync(self._log)
        self._synced = time.monotonic()

    def clear(self) -> None:
        """Remove it, and what is left of the same images under another name: of a try with a lower limit of unreadable ones."""
        for folder in (self.parent, *(f.parent for f in self._beside() if f.name == self.folder.name)):
            if folder == self.parent or not held(folder.with_suffix(".lock")):
                shutil.rmtree(folder, ignore_errors=True)

    def _beside(self) -> list[Path]:
        """Other beginnings: of before files were added, removed or changed, and of other datasets in the same place."""
        return sorted(f for f in self.parent.parent.glob(".*.partial/*") if f != self.folder and (f / "keys").exists())

    def _others(self) -> dict[bytes, Kept]:
        return {key: kept for folder in self._beside() for key, kept in _kept(folder).values()}

    def _take(self, pool: Pool) -> None:
        """Copy what is known already."""
        for records in self.pending() if pool else ():
            known = [(record, self._known(pool, record)) for record in records]
            for there, run in groupby(known, lambda each: each[1] is not None):
                if there:
                    numbers, images = zip(*run, strict=True)
                    self.write(numbers[0], Decoded(np.stack(images), {}))

    def _known(self, pool: Pool, record: int) -> np.ndarray | None:
        kept = pool.get(self.keys[record])
        if kept is None or kept.pixels.shape[1:] != self.shape:
            return None
        image = kept.pixels[kept.row]
        return image if _crc(image) == kept.crc else None


def _begin(folder: Path, keys: Sequence[bytes], shape: tuple[int, int, int]) -> None:
    """The folder with ``keys`` and ``images.npy`` at full length, unless it is there."""
    images, packed = folder / "images.npy", folder / "packed"
    if not images.exists() and (packed / "images.npy").exists():  # killed when all was decoded
        (packed / "images.npy").rename(images)
    shutil.rmtree(packed, ignore_errors=True)
    if (folder / "keys").exists() and images.exists():
        return
    needed, free = len(keys) * int(np.prod(shape)), shutil.disk_usage(folder.parent).free
    if needed > free:
        raise InputError(
            f"{folder.parent.parent}: {len(keys)} images take {needed / 1e9:.1f} GB and {free / 1e9:.1f} GB are free; make "
            "room, or name another folder."
        )
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    handle = os.open(images, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        _write_header(handle, (len(keys), *shape))
        os.ftruncate(handle, os.fstat(handle).st_size + needed)
    finally:
        os.close(handle)
    write_bytes(folder / "keys", b"".join(keys))


def _kept(folder: Path) -> dict[int, tuple[bytes, Kept]]:
    """What a beginning says that it has, by record. Whoever uses an image compares its check sum."""
    try:
        keys, log = (folder / "keys").read_bytes(), (folder / "done.log").read_bytes()
        pixels = np.load(
            next(f for f in (folder / "images.npy", folder / "packed" / "images.npy") if f.exists()), mmap_mode="r"
        )
    except (OSError, ValueError, StopIteration):
        return {}
    if len(pixels) * KEY != len(keys):
        return {}
    made: dict[int, int | str] = {}
    for line in log.splitlines():
        crc, _, text = line.partition(b" ")
        if crc == b"%08x" % zlib.crc32(text):
            start, chunk = json.loads(text)
            made |= dict(enumerate(chunk, start))
    return {
        i: (keys[KEY * i : KEY * (i + 1)], Kept(pixels, i, crc)) for i, crc in made.items() if not isinstance(crc, str)
    }


def _crc(image: np.ndarray) -> int:
    return zlib.crc32(np.ascontiguousarray(image).data)


def _write_header(handle: int, shape: Iterable[int]) -> None:
    with os.fdopen(os.dup(handle), "wb") as out:
        np.lib.format.write_array_header_1_0(out, {"descr": "|u1", "fortran_order": False, "shape": tuple(shape)})


def _write_all(handle: int, data: memoryview, at: int) -> None:
    while data:
        written = os.pwrite(handle, data, at)
        data, at = data[written:], at + written
