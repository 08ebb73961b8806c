"""Signs of life: who holds a lock on one machine is not seen to hold it from another."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from marginlab.bucket.place import key_of, told
from marginlab.bucket.single import remove, send

_BEAT_S, _DEAD_S = 20.0, 75.0


@contextmanager
def beating(lock: Path) -> Iterator[None]:
    """For the length of the block others can see that the holder of a lock lives, which they cannot see of the lock itself."""
    if key_of(lock) is None:
        yield
        return
    over = threading.Event()

    def beat() -> None:
        while True:
            with suppress(OSError):  # the next one may arrive
                send(lock)
            if over.wait(_BEAT_S):
                return

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        with suppress(OSError):
            remove(lock)


def beats(lock: Path) -> bool:
    """Whether somebody does that now, on whatever machine."""
    key = key_of(lock)
    if key is None:
        return False
    with told(key) as fs:
        info = fs.get_file_info(key)
    return bool(info.is_file) and time.time() - info.mtime.timestamp() < _DEAD_S
