"""Where this process is in its work, for a watchdog to read: what it does, and whether it waits for other ranks.

All ranks of a group enter the same collectives in the same order, so that the number entered says who is behind.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass
class Pulse:
    """Written by the thread that trains, read by others."""

    entered: int = 0  # collectives, and stretches of work in which torch has collectives of its own
    waiting: bool = False  # in one of them
    excused: int = 0  # above 0: it does alone what takes as long as it takes: scores, writes, asks whether to go on
    place: str = ""  # for people: "epoch 3, step 17"

    def reached(self) -> None:
        """What follows, every rank does, and may wait in it for the others."""
        self.entered += 1

    @contextmanager
    def collective(self) -> Iterator[None]:
        self.reached()
        self.waiting = True
        try:
            yield
        finally:
            self.waiting = False

    @contextmanager
    def alone(self) -> Iterator[None]:
        """What one rank does for all, and the others know to wait for."""
        self.excused += 1
        try:
            yield
        finally:
            self.excused -= 1


PULSE = Pulse()
