"""Stopping a study well: the epochs in progress end, checkpoints are kept, nothing new begins.

The wish is a file in the study's folder. Whoever trains sees the folder, on any node, and looks for it between two epochs.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

WISH = "stop"  # the file's name


class Stopped(Exception):
    """The study was asked to stop, and has."""


def ask(study_folder: Path) -> None:
    (study_folder / WISH).touch()


def asked(study_folder: Path) -> bool:
    return (study_folder / WISH).exists()


def clear(study_folder: Path) -> None:
    (study_folder / WISH).unlink(missing_ok=True)


@contextmanager
def gracefully(study_folder: Path, training: Callable[[], bool], say: Callable[[str], None]) -> Iterator[None]:
    """For the length of the block the first Ctrl-C asks the study to stop, the second one stops it at once.

    ``training``: whether epochs are in progress; while none are, the first one stops at once. Main thread only.
    """

    def handle(number: int, frame: FrameType | None) -> None:
        if not training() or asked(study_folder):
            raise KeyboardInterrupt
        try:
            ask(study_folder)
        except OSError:  # a full disk: there is no way to ask
            raise KeyboardInterrupt from None
        say(
            "Stopping: the epochs in progress end first. Once more (Ctrl-C) stops at once, and loses those epochs alone."
        )

    before = signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
