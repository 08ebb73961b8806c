"""Histograms as SVG that takes its colours from the page, as a study's figures do, and that needs no matplotlib."""

from __future__ import annotations

import polars as pl
from markupsafe import Markup

WIDTH, HEIGHT = 420, 215  # of the drawing, in its own units; the page scales it
LEFT, RIGHT, TOP, BOTTOM = 46, 8, 10, 44  # what axes and their words need
ACROSS, UP, FLOOR = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM, HEIGHT - BOTTOM
LETTER = 6.4  # width of a digit
TICKS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.25)

_SVG = Markup('<svg role="img" aria-label="{}" viewBox="0 0 {} {}" font-size="11" fill="var(--ink)">{}</svg>')
_TEXT = Markup('<text x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>')
_TURNED = Markup('<text x="12" y="{0:.1f}" text-anchor="middle" transform="rotate(-90 12 {0:.1f})">{1}</text>')
_LINE = Markup('<line x1="{0}" x2="{1}" y1="{2:.1f}" y2="{2:.1f}" stroke="var(--{3})"/>')
_BAR = Markup('<rect x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}" {}><title>{}</title></rect>')
_SWATCH = Markup(
    '<svg class="swatch" viewBox="0 0 38 12" aria-hidden="true"><rect x="1" y="1" width="36" height="10" {}/></svg>'
)
LOOKS = {
    "train": Markup('fill="var(--arm-0)"'),
    "test": Markup('fill="none" stroke="var(--arm-1)" stroke-width="1.8"'),
}
SWATCHES = {split: _SWATCH.format(look) for split, look in LOOKS.items()}


def bars(frame: pl.DataFrame, x: str, y: str) -> Markup:
    """A pair of bars per row: the training split filled, the test split hollow, so that nothing is told by colour alone.

    Args:
        frame: name, train and test, which are shares from 0 to 1 (summary.py). x, y: what the axes are.
    """
    high = max(0.01, *frame["train"], *frame["test"])
    step = next((t for t in TICKS if high / t <= 5), TICKS[-1])
    ticks = -int(-high / step // 1)
    unit = UP / (ticks * step)  # of a share of 1
    parts = [_TURNED.format(FLOOR - UP / 2, y), _TEXT.format(LEFT + ACROSS / 2, HEIGHT - 8, "middle", x)]
    for k in range(ticks + 1):
        at = FLOOR - unit * k * step
        parts.append(_LINE.format(LEFT, WIDTH - RIGHT, at, "grid" if k else "ink"))
        parts.append(_TEXT.format(LEFT - 5, at + 4, "end", f"{100 * k * step:.0f}%"))
    slot = ACROSS / len(frame)
    every = int((LETTER * max(map(len, frame["name"])) + 6) // slot) + 1  # names that have room
    for i, row in enumerate(frame.iter_rows(named=True)):
        left, said = LEFT + slot * i, f"{row['name']}: train {row['train']:.1%}, test {row['test']:.1%}"
        for place, (split, look) in enumerate(LOOKS.items()):
            if height := unit * row[split]:
                at = left + slot * (0.1 + 0.42 * place)
                parts.append(_BAR.format(at, FLOOR - height, slot * 0.38, height, look, said))
        if i % every == 0:
            parts.append(_TEXT.format(left + slot / 2, FLOOR + 15, "middle", row["name"]))
    return _SVG.format(f"{y} by {x}", WIDTH, HEIGHT, Markup().join(parts))
