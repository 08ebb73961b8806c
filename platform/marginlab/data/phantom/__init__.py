"""Phantoms: synthetic subjects that age, written in the real datasets' own file layouts, so that the whole pipeline runs without
any patient's data. What is measured on them says that the program works, and nothing about patients."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import ModuleType

from marginlab.data.phantom.values import Cxr14Phantom, EyePacsPhantom, OaiPhantom, delivered, deliveries
from marginlab.files import read_json, write_json
from marginlab.values import to_json

__all__ = [
    "PHANTOMS",
    "Cxr14Phantom",
    "EyePacsPhantom",
    "OaiPhantom",
    "count",
    "delivered",
    "deliveries",
    "phantom_of",
    "write",
]

MARK = "PHANTOM.json"  # in a rendered folder: so that what is measured on it is labelled, however the folder travelled

COUNTED = 2000  # subjects: a tenth of a second

Phantom = OaiPhantom | Cxr14Phantom | EyePacsPhantom
PHANTOMS: dict[str, Phantom] = {"oai": OaiPhantom(), "cxr14": Cxr14Phantom(), "eyepacs": EyePacsPhantom()}


def write(phantom: Phantom, folder: Path | str, progress: Callable[[int, int], None] | None = None) -> None:
    """Render all subjects and write images and tables below ``folder``. ``progress`` is called with (done, total) subjects."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    told = progress or (lambda done, total: None)
    _layout(phantom).write(phantom, folder, told)
    write_json(folder / MARK, to_json(phantom))


def _layout(phantom: Phantom) -> ModuleType:
    """The module that knows the phantom's files; imported only where it is needed."""
    return import_module(f"{__name__}.layout_{next(n for n, p in PHANTOMS.items() if type(p) is type(phantom))}")


def count(phantom: Phantom) -> tuple[int, int]:
    """How many images a phantom will have: those of the training split (folds included) and of the test split.

    Known before anything is drawn, because the number of visits is; of more than ``COUNTED`` subjects the first speak for all.
    """
    layout = _layout(phantom)
    looked = min(phantom.subjects, COUNTED)
    images = [0, 0]
    for index in range(looked):
        test, taken = layout.images_of(phantom, index)
        images[test] += taken
    train, test_images = (round(n * phantom.subjects / looked) for n in images)
    return train, test_images


def phantom_of(folder: Path | str) -> str | None:
    """The name and version of the phantom that a raw folder holds; None for real images."""
    mark = Path(folder) / MARK
    if not mark.exists():
        return None
    written = read_json(mark)
    return f"{written['type'].rpartition(':')[2]} v{written['version']}"
