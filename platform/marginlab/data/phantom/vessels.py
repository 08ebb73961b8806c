"""The vessels of a fundus: they come out of the optic disc, arch over the macula and branch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from marginlab.data.phantom.draw import Array, edge
from marginlab.data.phantom.eye import Eye

# Where a trunk leaves the disc, how it bends and how far it goes: heading and bend in radians (0: to the nose, upwards
# positive), length in radii of the field.
TRUNKS = ((1.75, 1.55, 1.75), (1.05, -0.35, 0.85))  # over the macula, to the nose; each also below, as artery and vein
BRANCHES, DEPTH = 4, 2
KINDS = ("arteries", "veins")
KNOTS = 24  # points of a vessel, before it is drawn
STAMPED = 1_000_000  # pixels that are worked out at a time


@dataclass(frozen=True)
class Canvas:
    """Where strokes are drawn. ``place`` takes points of the eye [K, 2] to pixels; ``scale`` is pixels per unit of the eye."""

    height: int
    width: int
    place: Callable[[Array], Array]
    scale: float

    @property
    def blur(self) -> float:
        """Of one pixel, in units of the eye."""
        return 1.0 / self.scale

    def steps(self, length: float) -> int:
        """Points that a line of this length needs: one per pixel."""
        return max(4, int(np.ceil(length * self.scale)))

    def stroke(self, points: Array, radius: Array) -> Array:
        """A line along ``points`` [K, 2] of the eye, ``radius`` [K] thick: [H, W] from 0 to 1, softened by a pixel.

        A line thinner than a pixel is as faint as it is thin.
        """
        out = np.zeros(self.height * self.width)
        centre, r = self.place(points), radius * self.scale
        reach = int(np.ceil(r.max() + 1.0))
        inside = ((centre > -reach) & (centre < np.array([self.width, self.height]) + reach)).all(1)
        centre, r = centre[inside], r[inside]
        offset = np.arange(-reach, reach + 1)
        for part in np.array_split(np.arange(len(r)), 1 + len(r) * len(offset) ** 2 // STAMPED):
            at, thick = centre[part, :, None, None], r[part, None, None]
            px = np.floor(at[:, 0]).astype(np.int64) + offset[None, None, :]
            py = np.floor(at[:, 1]).astype(np.int64) + offset[None, :, None]
            away = np.sqrt((px + 0.5 - at[:, 0]) ** 2 + (py + 0.5 - at[:, 1]) ** 2)
            value = edge(thick - away + 0.25, 1.5) * np.minimum(1.0, 0.35 + thick)
            seen = (value > 0) & (px >= 0) & (px < self.width) & (py >= 0) & (py < self.height)
            np.maximum.at(out, (py * self.width + px)[seen], value[seen])
        return out.reshape(self.height, self.width)

    def window(self, x: float, y: float, reach: float) -> tuple[slice, slice]:
        """The rows and columns of all pixels within ``reach`` of a point of the eye."""
        (px, py), far = self.place(np.array([[x, y]]))[0], reach * self.scale + 1.0
        rows = slice(max(0, int(py - far)), max(0, int(py + far) + 1))
        return rows, slice(max(0, int(px - far)), max(0, int(px + far) + 1))


def tree(eye: Eye, canvas: Canvas) -> tuple[Array, Array]:
    """How much blood, and how much of the arteries' bright reflex, is at each pixel: two [H, W] from 0 to 1."""
    (line, radius), (vein, wide) = (_lines(eye, canvas, kind) for kind in KINDS)
    dark = np.maximum(0.75 * canvas.stroke(line, radius), canvas.stroke(vein, wide))
    thick = radius * canvas.scale > 1.0  # pixels: only there is a reflex to be seen
    return dark, canvas.stroke(line[thick], 0.25 * radius[thick]) if thick.any() else np.zeros_like(dark)


def _lines(eye: Eye, canvas: Canvas, kind: str) -> tuple[Array, Array]:
    """All arteries or all veins: points [K, 2], a pixel apart, and radius [K], which fades around the fovea."""
    t, tape = eye.traits, iter(np.split(eye.tape, len(KINDS))[KINDS.index(kind)])
    lines: list[tuple[Array, Array, float]] = []
    for below in (False, True):
        for heading, bend, length in TRUNKS:
            out = heading + 0.16 * next(tape) + (0.20 if kind == "veins" else -0.10)
            width = t[kind] * (1.0 + 0.1 * next(tape))
            start = np.array([t["disc_x"] - 0.03, t["disc_y"]]) + 0.015 * np.array([next(tape), next(tape)])
            lines += _grown(tape, start, out, bend, length, width, below, DEPTH)
    knots = np.linspace(0.0, 1.0, KNOTS)
    fine = [np.linspace(0.0, 1.0, canvas.steps(length)) for _, _, length in lines]
    line = np.concatenate(
        [np.stack([np.interp(f, knots, p[:, k]) for k in (0, 1)], 1) for f, (p, _, _) in zip(fine, lines, strict=True)]
    )
    radius = np.concatenate([np.interp(f, knots, r) for f, (_, r, _) in zip(fine, lines, strict=True)])
    return line, radius * edge(np.hypot(line[:, 0] - t["fovea_x"], line[:, 1] - t["fovea_y"]) - 0.14, 0.10)


def _grown(
    tape: Iterator[float],
    start: Array,
    heading: float,
    bend: float,
    length: float,
    width: float,
    below: bool,
    depth: int,
) -> Iterator[tuple[Array, Array, float]]:
    """A vessel and its branches: points [KNOTS, 2], radius [KNOTS] and length of each. ``below``: mirrored under the disc."""
    s = np.linspace(0.0, 1.0, KNOTS)
    length *= 1.0 + 0.08 * next(tape)
    bend += 0.22 * next(tape)
    turn = (
        heading + bend * s + 0.22 * next(tape) * np.sin(2.0 * np.pi * s) + 0.14 * next(tape) * np.sin(5.0 * np.pi * s)
    )
    step = length / (KNOTS - 1)
    up = 1.0 if below else -1.0
    x = start[0] + step * np.concatenate([[0.0], np.cumsum(np.cos(turn[:-1]))])
    y = start[1] + step * np.concatenate([[0.0], np.cumsum(np.sin(turn[:-1]))]) * up
    points = np.stack([x, y], 1)
    yield points, width * (1.0 - 0.6 * s), length
    if not depth:
        return
    for b in range(BRANCHES if depth == DEPTH else 2):
        where = int(np.clip(KNOTS * (0.2 + 0.7 * (b + 0.5 + 0.25 * next(tape)) / BRANCHES), 1, KNOTS - 2))
        side = 1.0 if (b + (bend > 0)) % 2 else -1.0
        away = side * (0.75 + 0.15 * next(tape))
        rest = 0.75 * length * (1.0 - 0.6 * s[where])
        left = 0.60 * width * (1.0 - 0.5 * s[where])
        yield from _grown(
            tape, points[where], float(turn[where]) + away, -0.5 * away, 0.6 * rest, left, below, depth - 1
        )
