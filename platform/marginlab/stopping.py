"""Stopping a study well: the epochs in progress end, checkpoints are kept, nothing new begins.

The wish is a file in the study's folder. Whoever trains sees the folder, on any node, and looks for it between two epochs.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import FrameType

from marginlab import bucket
from marginlab.files import patiently

WISH = "stop"  # the file's name
SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(Exception):
    """The study was asked to stop, and has."""


def ask(study_folder: Path) -> None:
    (study_folder / WISH).touch()
    bucket.send(study_folder / WISH)


def asked(study_folder: Path, surely: bool = False) -> bool:
    """In object storage its word alone counts: a file of this machine's own may be of a stop that another machine has ended.

    Where it does not answer: False, as whoever trains asks again after the next epoch; ``surely`` waits for it.
    """
    if bucket.key_of(study_folder) is None:
        return (study_folder / WISH).exists()
    there = partial(bucket.there, study_folder / WISH)
    try:
        return patiently(there) if surely else there()
    except OSError:
        return False


def clear(study_folder: Path) -> None:
    (study_folder / WISH).unlink(missing_ok=True)
    bucket.remove(study_folder / WISH)


@contextmanager
def gracefully(study_folder: Path, training: Callable[[], bool], say: Callable[[str], None]) -> Iterator[None]:
    """For the length of the block the first Ctrl-C or SIGTERM asks the study to stop, the second one stops it at once.

    SIGTERM is how schedulers, and Ray for its jobs, ask a process to end. ``training``: whether epochs are in progress; while
    none are, the first one stops at once. Main thread only.
    """

    me, wished = os.getpid(), False

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal wished
        if os.getpid() != me:  # a forked child that inherited this: the signal is for it alone
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        if not training() or wished or asked(study_folder):
            raise KeyboardInterrupt
        try:
            ask(study_folder)
        except OSError:  # a full disk: there is no way to ask
            raise KeyboardInterrupt from None
        wished = True
        say(
            "Stopping: the epochs in progress end first. Once more (Ctrl-C) stops at once, and loses those epochs alone."
        )

    before = {number: signal.signal(number, handle) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def handlers_kept() -> Iterator[None]:
    """What the block installs for SIGTERM gives way to a handler of Python's that was there before."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if callable(before) and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)
