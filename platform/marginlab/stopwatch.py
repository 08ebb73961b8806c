"""A stopwatch that a crash does not set back: its seconds are kept in a file, on a clock that never jumps."""

from __future__ import annotations

import time
from pathlib import Path

from marginlab.files import read_json, write_json

KEEP_PERIOD_S = 2.0  # a crash loses what passed since somebody last said keep


class Stopwatch:
    """Runs from when it is made, on top of what its file has from earlier sessions."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._before = float(read_json(path)["seconds"]) if path.exists() else 0.0
        self._began = self._kept = time.monotonic()

    def seconds(self) -> float:
        return self._before + time.monotonic() - self._began

    def keep(self, now: bool = False) -> None:
        """Write the seconds down, if that was some time ago or is asked for ``now``."""
        if now or time.monotonic() - self._kept >= KEEP_PERIOD_S:
            self._kept = time.monotonic()
            write_json(self.path, {"seconds": round(self.seconds(), 3)})
