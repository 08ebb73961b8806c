"""Where Tune and Train keep what they share between nodes: beside the study, in whatever storage that is."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from marginlab import bucket


def storage_of(path: Path) -> dict[str, Any]:
    """The arguments of a ``RunConfig`` of Tune's or Train's."""
    key = bucket.key_of(path)
    return (
        {"storage_path": str(path)} if key is None else {"storage_path": key, "storage_filesystem": bucket.filesystem()}
    )


def clear(path: Path) -> None:
    """It is disposable: the run folders are the truth."""
    shutil.rmtree(path, ignore_errors=True)
    bucket.remove(path)
