"""What keeps a study waiting at this moment: a disk that cannot be written, a database that is away or that somebody else holds."""

from __future__ import annotations

import tempfile
from pathlib import Path

from marginlab import bucket, study_database
from marginlab.postgres_schema import WAITS


def hindrance(study_folder: Path) -> str:
    """A sentence, or nothing."""
    try:
        with tempfile.NamedTemporaryFile(dir=study_folder, prefix=".room.") as f:
            f.write(bytes(4096))
            f.flush()
    except OSError as e:
        return f"{study_folder} cannot be written ({e.strerror}). {WAITS} when it can."
    if why := bucket.hindrance(study_folder):
        return f"{bucket.shown(study_folder)} cannot be written ({why}). {WAITS} when it can."
    return study_database.of(study_folder).hindrance()
