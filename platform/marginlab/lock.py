"""Locks that a crash cannot leave behind: the kernel holds them for as long as their process lives."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL)  # what a file system without locks answers
_LOOKS, _LOOK_S = 25, 0.02  # half a second: whoever only looks holds it for microseconds, but many may look


class Held(RuntimeError):
    """Somebody else has the lock. ``holder`` is what they wrote into it: pid, host, since (seconds since 1970)."""

    def __init__(self, holder: dict[str, Any]) -> None:
        super().__init__(f"held by process {holder.get('pid', '?')} on {holder.get('host', '?')}")
        self.holder = holder


@contextmanager
def locked(path: Path, *, wait: bool = False, needed: bool = False) -> Iterator[None]:
    """Hold the lock of a file, which stays behind, empty of meaning, when it is given back.

    On a file system without locks the block runs unlocked, unless one is ``needed``.

    Raises:
        Held: another process has it (never with ``wait``).
        OSError: the file cannot be made; or, where a lock is ``needed``, there are none (``NO_LOCKS``).
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as f:
        for left in reversed(range(_LOOKS)):
            try:
                fcntl.flock(f, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
                break
            except OSError as e:
                if e.errno in NO_LOCKS and not needed:
                    break
                if e.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                    raise
                if not left:
                    raise Held(_holder(path)) from None
            time.sleep(_LOOK_S)  # somebody may just be looking (held)
        with suppress(OSError):  # a full disk: the lock is held, it only does not say by whom
            os.ftruncate(f.fileno(), 0)
            note = {"pid": os.getpid(), "host": os.uname().nodename, "since": time.time()}
            os.write(f.fileno(), json.dumps(note).encode())
        yield


def held(path: Path) -> bool:
    """Whether some process has the lock."""
    try:
        with path.open() as f:
            fcntl.flock(f, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return False
    except FileNotFoundError:
        return False
    except OSError as e:
        return e.errno in (errno.EWOULDBLOCK, errno.EACCES)


def _holder(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError):
        return {}
