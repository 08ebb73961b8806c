"""What keeps a study waiting at this moment: a disk that cannot be written, a database that somebody else holds."""

from __future__ import annotations

import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path

from marginlab.files import PATIENCE_S

LOCK_S = 2.0  # the registrar holds the database for milliseconds


def hindrance(study_folder: Path) -> str:
    """A sentence, or nothing."""
    wait = f"Training waits for up to {PATIENCE_S / 60:.0f} minutes and goes on by itself"
    try:
        with tempfile.NamedTemporaryFile(dir=study_folder, prefix=".room.") as f:
            f.write(bytes(4096))
            f.flush()
    except OSError as e:
        return f"{study_folder} cannot be written ({e.strerror}). {wait} when it can."
    database = study_folder / "optuna.db"
    if database.exists():
        try:
            with closing(sqlite3.connect(database, timeout=LOCK_S, isolation_level=None)) as connection:
                connection.execute("BEGIN IMMEDIATE")
                connection.execute("ROLLBACK")
        except sqlite3.Error as e:
            return f"{database} cannot be written ({e}): another program holds it. {wait} when that one lets go."
    return ""
