"""Losses, policies, networks and readers of a user's own study file: how they reach other processes.

A study file is imported under a name of its own. Values of its classes are recorded with that name and with a hash of the
class's source, so that a changed loss is another loss. The file is kept in the study's folder, from where workers,
submitted jobs and replays import it.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from marginlab.files import write_text

PREFIX = "marginlab_study_"  # of the modules that study files become


def load(path: Path) -> ModuleType:
    """Run a study file as a module. What it raises goes up."""
    name = PREFIX + "".join(c if c.isalnum() else "_" for c in path.stem)
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None  # a .py file always has them
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def keep(study_folder: Path, recorded: Any) -> None:
    """Keep the files of all user modules that a study, as JSON, names."""
    for name in sorted(_modules(recorded)):
        source = Path(str(sys.modules[name].__file__))
        kept = study_folder / "code" / f"{name}.py"
        if source.resolve() != kept.resolve():
            write_text(kept, source.read_text())


def use(inside: Path) -> None:
    """Make the user modules importable that were kept in the study folder which holds this path."""
    for folder in (inside, *inside.parents):
        if (folder / "study.json").exists():
            code = str(folder / "code")
            if Path(code).is_dir() and code not in sys.path:
                sys.path.append(code)
            return


def _modules(recorded: Any) -> set[str]:
    if isinstance(recorded, list):
        return set().union(*map(_modules, recorded))
    if not isinstance(recorded, dict):
        return set()
    own = str(recorded.get("type", "")).partition(":")[0]
    return set().union(*map(_modules, recorded.values())) | ({own} if own.startswith(PREFIX) else set())
