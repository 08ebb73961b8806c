"""What went wrong around a study and was mended by itself: a file of sentences in its folder, for status and operators."""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from marginlab.files import read_lines

FILE = "faults.jsonl"


@dataclass(frozen=True)
class Fault:
    time: float  # seconds since 1970
    host: str  # that noticed it
    what: str  # a sentence

    def __str__(self) -> str:
        return f"{time.strftime('%d %b %H:%M', time.localtime(self.time))}, seen by {self.host}: {self.what}"


def note(study_folder: Path, sentence: str) -> None:
    """Add a sentence. Nothing waits for it: a disk that is full forgets it."""
    line = json.dumps({"time": time.time(), "host": os.uname().nodename, "what": sentence})
    with suppress(OSError), (study_folder / FILE).open("a") as f:
        f.write(line + "\n")  # in one write: several hosts may have something to say


def read(study_folder: Path) -> list[Fault]:
    """All of them, in their order."""
    return [Fault(**row) for row in read_lines(study_folder / FILE)]
