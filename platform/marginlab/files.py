"""Files that are either whole or absent: written aside, flushed to the disk, renamed; and sent, where the workspace is elsewhere.

What the platform writes waits for a disk that is full or read-only for a while (``patiently``): a run loses nothing by it.
"""

from __future__ import annotations

import errno
import json
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from marginlab import bucket
from marginlab.pulse import PULSE

PATIENCE_S = 240.0  # for a disk to come back; less than ranks wait for one another
WAITED = "It was waited for in vain."
# What a person can mend, or what passes by itself: the latter are of file systems in a network.
PASSING = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE, errno.EFBIG),
    *(errno.ETIMEDOUT, errno.ENOTCONN, errno.EHOSTDOWN, errno.EHOSTUNREACH),
)
T = TypeVar("T")
_ASIDE = re.compile(r"\..+\.[a-z0-9_]{8}\.\w+")  # as mkstemp names them

_UMASK = os.umask(0o077)  # it can only be read by setting it
os.umask(_UMASK)


@contextmanager
def aside(path: Path) -> Iterator[Path]:
    """A temporary path in the same folder that replaces ``path`` when the block ends well, and vanishes when not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    temporary.chmod(0o666 & ~_UMASK)  # mkstemp's files are their owner's alone
    try:
        yield temporary
        with temporary.open("rb") as f:
            os.fsync(f.fileno())
        temporary.replace(path)
        bucket.send(path)
    finally:
        temporary.unlink(missing_ok=True)


def sweep(folder: Path) -> None:
    """Remove what killed processes have left of their writing ``aside``, anywhere in a folder that nobody writes to any more."""
    for path in folder.rglob(".*"):
        if _ASIDE.fullmatch(path.name) and path.is_file():
            path.unlink(missing_ok=True)


def passes(e: Exception) -> bool:
    """Whether it is a disk that is full, read-only or out of order, which a person can mend."""
    return isinstance(e, OSError) and e.errno in PASSING


def patiently(do: Callable[[], T], passes: Callable[[Exception], bool] = passes) -> T:
    """Call ``do``, and again while what it raises ``passes``, for at most ``PATIENCE_S``."""
    until, pause = time.monotonic() + PATIENCE_S, 0.1
    with PULSE.alone():  # other ranks wait along
        while True:
            try:
                return do()
            except Exception as e:
                if not passes(e):
                    raise
                if time.monotonic() + pause > until:
                    e.add_note(WAITED)  # travels with it to other processes
                    raise
            time.sleep(pause)
            pause = min(2 * pause, 5.0)


def rename(path: Path, to: Path) -> None:
    """Begun again, it goes on where it was."""
    to.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileNotFoundError):
        path.replace(to)
    bucket.send(to)
    bucket.remove(path)


def remove(path: Path) -> None:
    path.unlink(missing_ok=True)
    bucket.remove(path)


def write_bytes(path: Path, data: bytes, patient: bool = True) -> None:
    def write() -> None:
        with aside(path) as temporary:
            temporary.write_bytes(data)

    patiently(write) if patient else write()


def write_text(path: Path, text: str, patient: bool = True) -> None:
    write_bytes(path, text.encode(), patient)


def write_json(path: Path, data: Any, patient: bool = True) -> None:
    write_text(path, json.dumps(data, indent=1, sort_keys=True, allow_nan=False) + "\n", patient)


def read_json(path: Path) -> Any:
    return json.loads(path.read_text())


def append_line(path: Path, data: dict[str, Any], patient: bool = True) -> None:
    """Append one JSON line and flush it to the disk; a line cut short by a crash is ended first, to be skipped by readers."""

    def append() -> None:
        _append(path, json.dumps(data) + "\n")

    patiently(append) if patient else append()


def _append(path: Path, line: str) -> None:
    with path.open("ab") as f:
        if f.tell() > 0 and not path.read_bytes().endswith(b"\n"):
            line = "\n" + line
        f.write(line.encode())
        f.flush()
        os.fsync(f.fileno())
    bucket.send(path)


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a file of JSON lines; a truncated one is passed over."""
    rows = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return rows
