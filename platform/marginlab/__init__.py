"""MarginLab: does a margin that tunes itself match the best margin that a search can find, and at what share of the cost?"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from marginlab.results import Results

__version__ = "0.1.0"


def open(workspace: Path | str = "workspace", study: str | None = None) -> Results:
    """A study's results, for a notebook: finished or not, what is there can be read. ``docs/python.md`` shows how.

    Args:
        study: its name; may be left out where the workspace has one.
    """
    from marginlab.results import Results  # here, so that `import marginlab` stays light
    from marginlab.values import InputError
    from marginlab.workspace import Workspace

    space = Workspace.at(workspace)
    known = space.studies()
    name = known[0] if study is None and len(known) == 1 else study
    if name not in known:
        asked = "no study was named" if study is None else f"there is no study {study!r}"
        raise InputError(f"{space.root}: {asked}; there are {', '.join(known) or 'none'}.")
    return Results.open(space.study(name))
