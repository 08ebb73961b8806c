"""A table of images in frames: green with a tick where right, orange with a cross where wrong. Everything is escaped."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from marginlab.report import figures
from marginlab.report.words import NOTHING

_TABLE = Markup(
    '<div class="scroll" tabindex="0"><table class="gallery"><thead><tr><td></td>{}</tr></thead><tbody>{}</tbody></table></div>'
)
_MARKS = {True: ("right", "✓"), False: ("wrong", "✗")}


@dataclass(frozen=True)
class Cell:
    """An image and what is said of it; without an image, a dash."""

    uri: str | None
    alt: str = ""
    right: bool | None = None  # None: neither, a plain frame
    text: str = ""
    below: str = ""  # smaller


def table(columns: Sequence[Markup | str], rows: Sequence[tuple[Markup | str, Sequence[Cell]]]) -> Markup:
    """Rows of a heading and as many cells as there are columns."""
    heads = Markup().join(Markup('<th scope="col">{}</th>').format(c) for c in columns)
    lines = (
        Markup('<tr><th scope="row">{}</th>{}</tr>').format(head, Markup().join(map(_cell, cells)))
        for head, cells in rows
    )
    return _TABLE.format(heads, Markup().join(lines))


def head(query: str, months: int | None) -> Markup:
    """A column's heading: which query, and how long after the subject's first visit where that is known."""
    return Markup("{}").format(query) if months is None else Markup("{}<br>{} months").format(query, months)


def whole(months: float) -> int | None:
    return None if math.isnan(months) else round(float(months))


def arm_head(index: int, arm: str) -> Markup:
    """An arm's name with its glyph in its colour."""
    colour, glyph = figures.arm_colour(index), figures.glyph(index)
    name = Markup("/<wbr>").join(arm.split("/"))
    return Markup('<span style="color: {}">{}</span> {}').format(colour, glyph, name)


def _cell(cell: Cell) -> Markup:
    if cell.uri is None:
        return Markup("<td>{}</td>").format(cell.text or NOTHING)
    kind, mark = ("", "") if cell.right is None else _MARKS[cell.right]
    image = Markup('<img class="{}" src="{}" alt="{}">').format(kind, cell.uri, cell.alt)
    text = Markup("<b>{}</b> {}").format(mark, cell.text) if mark else Markup("{}").format(cell.text)
    below = Markup('<span class="quiet">{}</span>').format(cell.below) if cell.below else ""
    return Markup('<td class="{}">{}{}{}</td>').format(kind, image, text, below)
