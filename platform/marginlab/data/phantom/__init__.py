"""Phantoms: synthetic subjects that age, written in the real datasets' own file layouts, so that the whole pipeline runs without
any patient's data. What is measured on them says that the program works, and nothing about patients."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from marginlab.data.phantom.values import Cxr14Phantom, OaiPhantom

__all__ = ["PHANTOMS", "Cxr14Phantom", "OaiPhantom", "write"]

PHANTOMS: dict[str, OaiPhantom | Cxr14Phantom] = {"oai": OaiPhantom(), "cxr14": Cxr14Phantom()}


def write(
    phantom: OaiPhantom | Cxr14Phantom, folder: Path | str, progress: Callable[[int, int], None] | None = None
) -> None:
    """Render all subjects and write images and tables below ``folder``. ``progress`` is called with (done, total) subjects."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    told = progress or (lambda done, total: None)
    if isinstance(phantom, OaiPhantom):
        from marginlab.data.phantom import layout_oai

        layout_oai.write(phantom, folder, told)
    else:
        from marginlab.data.phantom import layout_cxr14

        layout_cxr14.write(phantom, folder, told)
