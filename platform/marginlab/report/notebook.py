"""A report's drawing outside of the report: in a notebook's cell, or as a file of its own."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from marginlab.files import write_text


@dataclass(frozen=True)
class Drawing:
    """An SVG of :mod:`marginlab.report.figures` with the colours that it would take from the report's page, in light."""

    svg: str

    def _repr_html_(self) -> str:
        style = "; ".join(f"{name}: {colour}" for name, colour in _colours().items())
        return f"<div style='max-width: 42em; background: var(--ground); {style}'>{self.svg}</div>"

    def save(self, path: Path | str) -> Path:
        """As a file that a browser or an editor of drawings opens."""
        svg = self.svg.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)
        for name, colour in _colours().items():
            svg = svg.replace(f"var({name})", colour.replace('"', "'"))
        write_text(Path(path), svg + "\n")
        return Path(path)


@cache
def _colours() -> dict[str, str]:
    style = Path(__file__).with_name("style.css").read_text()
    found = re.findall(r"(--(?:ground|ink|quiet|grid|type|arm-\d+)): ([^;]+);", style)
    return {name: colour.replace('"', "") for name, colour in reversed(found)}  # of each, the first: the light one
