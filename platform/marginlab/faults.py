"""What went wrong around a study and was mended by itself: files of sentences in its folder, for status and operators.

Every process has a file of its own: several hosts may have something to say, and not all storage can be added to by several.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from marginlab.files import append_line, read_lines

FOLDER = "faults"


@dataclass(frozen=True)
class Fault:
    time: float  # seconds since 1970
    host: str  # that noticed it
    what: str  # a sentence

    def __str__(self) -> str:
        return f"{time.strftime('%d %b %H:%M', time.localtime(self.time))}, seen by {self.host}: {self.what}"


def note(study_folder: Path, sentence: str) -> None:
    """Add a sentence. Nothing waits for it: a disk that is full forgets it."""
    host = os.uname().nodename
    with suppress(OSError):
        (study_folder / FOLDER).mkdir(exist_ok=True)
        fault = {"time": time.time(), "host": host, "what": sentence}
        append_line(study_folder / FOLDER / f"{host}.{os.getpid()}.jsonl", fault, patient=False)


def read(study_folder: Path) -> list[Fault]:
    """All of them, in their order."""
    rows = [row for path in (study_folder / FOLDER).glob("*.jsonl") for row in read_lines(path)]
    return sorted((Fault(**row) for row in rows), key=lambda f: f.time)
