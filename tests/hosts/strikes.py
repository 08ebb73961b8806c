"""What struck a study, when, in which phase, how soon it trained on, and what it had to train again."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from marginlab.files import read_lines

SEARCH, CONFIRMATION = "search", "confirmation"
REPORT: list[str] = []  # printed at the end of the tests (conftest.py)


@dataclass(frozen=True)
class Strike:
    fault: str
    folder: Path  # the study's
    phase: str
    epoch: int  # how many had been trained
    at: float  # seconds since 1970
    kept: dict[tuple[str, int], float]  # the epochs that were there, by run folder and number: when each was written

    @classmethod
    def now(cls, fault: str, folder: Path) -> Strike:
        kept = rows(folder)
        return cls(fault, folder, phase(folder), sum(epoch > 0 for _, epoch in kept), time.time(), kept)

    def lost(self) -> int:
        """Epochs that had been kept and were trained again all the same."""
        after = rows(self.folder)
        return sum(after.get(which) != when for which, when in self.kept.items())

    def pause_s(self) -> float | None:
        """Until the end of the next epoch; None where it was the last one."""
        later = [when for when in rows(self.folder).values() if when > self.at]
        return min(later) - self.at if later else None

    def __str__(self) -> str:
        pause = self.pause_s()
        then = "no epoch came after it" if pause is None else f"the next epoch after {pause:4.0f} s"
        return f"{self.fault:30} {self.phase:12} after epoch {self.epoch:3}: {then}, {self.lost()} kept epochs lost"


def phase(folder: Path) -> str:
    return CONFIRMATION if any(folder.glob("runs/*/*/*/confirmation-*")) else SEARCH


def rows(folder: Path) -> dict[tuple[str, int], float]:
    """When each epoch of a study's runs was written, by run folder and number."""
    return {
        (str(path.parent.relative_to(folder)), row["epoch"]): row["time"]
        for path in folder.glob("runs/*/*/*/*/epochs.jsonl")
        for row in read_lines(path)
    }
