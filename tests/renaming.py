"""Phantoms under names that cannot occur by chance, so that they can be looked for."""

from __future__ import annotations

import secrets
from pathlib import Path

from marginlab.data.phantom import OaiPhantom, write

IMAGES = "ResizedImages"


def write_renamed(phantom: OaiPhantom, folder: Path) -> str:
    """Knees whose subjects and files have long random names; returns the random text that all of these begin with or contain.

    The names keep the order of the numbers that they stand for, so that nothing else changes: neither folds nor fingerprints.
    """
    mark, partial = secrets.token_hex(12), folder.with_name(folder.name + ".numbers")
    write(phantom, partial)
    numbers = sorted({p.name.partition("_")[0] for p in (partial / IMAGES).iterdir()})
    names = dict(zip(numbers, sorted(mark + secrets.token_hex(8) for _ in numbers), strict=True))
    for table in partial.glob("*.txt"):
        head, *rows = table.read_text().splitlines()
        cells = (row.partition("|") for row in rows)
        table.write_text("\n".join([head, *(f"{names[number]}|{rest}" for number, _, rest in cells)]) + "\n")
    for file in (partial / IMAGES).iterdir():
        number, months, *_, side = file.stem.split("_")
        file.rename(file.with_name(f"{names[number]}_{months}_{mark}_{side}.png"))
    partial.rename(folder)
    return mark
