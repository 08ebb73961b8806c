"""What was mended by itself is kept in the study's folder, and ``status`` shows it."""

from __future__ import annotations

import io
from pathlib import Path

from rich.console import Console

from marginlab import faults
from marginlab.drawing import MENDED, status_view
from marginlab.watching import Snapshot


def test_sentences_are_kept_in_their_order(tmp_path: Path) -> None:
    assert faults.read(tmp_path) == []
    for sentence in ("Rank 1 on host1 kept the others waiting.", "Ray kept resources."):
        faults.note(tmp_path, sentence)
    assert [f.what for f in faults.read(tmp_path)] == [
        "Rank 1 on host1 kept the others waiting.",
        "Ray kept resources.",
    ]


def test_a_disk_that_takes_nothing_is_no_trouble(tmp_path: Path) -> None:
    faults.note(tmp_path / "absent", "Ray kept resources.")


def test_status_shows_the_last_ones(tmp_path: Path) -> None:
    for number in range(MENDED + 2):
        faults.note(tmp_path, f"Rank {number} stood still.")
    shot = Snapshot("s", "search", {}, 0, 1, 0, 1, mended=[str(f) for f in faults.read(tmp_path)])
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(status_view(shot))
    text = console.export_text()
    assert "Rank 0" not in text and f"Rank {MENDED + 1} stood still." in text and "and 2 mended before" in text
