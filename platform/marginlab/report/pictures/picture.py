"""What a page shows of one matter: panels with a title above and a caption below."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from markupsafe import Markup


@dataclass
class Picture:
    """Without panels the caption says what is missing. A page that shows panels needs :data:`STYLE` and ``img-src data:``."""

    title: str
    caption: str
    panels: list[tuple[str, Markup]] = field(default_factory=list)  # what a panel shows ("" if the title says it)
    legend: bool = True  # whether the page's legend of the arms belongs to it


def sentences(parts: Iterable[str]) -> str:
    """The parts that say something, one after another."""
    return " ".join(p for p in parts if p)


# The frames of retrieved images; green and orange after Okabe and Ito, each with a mark beside it.
STYLE = """
:root { --right: #00825e; --wrong: #cf5300; }
@media (prefers-color-scheme: dark) { :root { --right: #2fcf9f; --wrong: #ff8f45; } }
.panels > div:has(table.gallery) { grid-column: 1 / -1; max-width: none; }
table.gallery { font-size: .85rem; line-height: 1.35; }
table.gallery th, table.gallery td { padding: .3rem .5rem .3rem 0; vertical-align: top; border: 0; font-weight: 400; white-space: normal; }
table.gallery thead th { font-weight: 600; vertical-align: bottom; }
table.gallery tbody th { position: sticky; left: 0; background: var(--ground); width: 8.5rem; min-width: 6.5rem; overflow-wrap: anywhere; }
table.gallery img { display: block; width: 6.4rem; height: 6.4rem; object-fit: contain; background: #000; border-radius: .3rem;
  border: .25rem solid var(--grid); }
table.gallery img.right { border-color: var(--right); }
table.gallery img.wrong { border-color: var(--wrong); }
table.gallery .right b { color: var(--right); }
table.gallery .wrong b { color: var(--wrong); }
table.gallery .quiet { display: block; font-size: .8rem; }
"""
