"""The picture of a fundus, in colour: what a fundus camera shows of a round field, and black around it.

The right eye is drawn: its optic disc is on the right of the picture, where the nose is. A left eye is its mirror image.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from marginlab.data.phantom.draw import Array, Machine, bell, edge, generator, normal, uniform
from marginlab.data.phantom.eye import SIDES, Eye, Lesion
from marginlab.data.phantom.vessels import Canvas, tree

MACHINE = Machine(
    rotation=0.10, shift=0.05, zoom=0.04, exposure=0.07, contrast=0.15, gamma=0.12, shade=0.06, noise=(0.008, 0.025)
)
ASPECT = 4 / 3  # width of a picture by its height
FIELD = (0.88, 1.06)  # radius of the field by half the picture's height; above 1 its top and bottom are cut off
COTTON, DISC, CUP = (0.93, 0.88, 0.72), (0.98, 0.80, 0.50), (1.0, 0.93, 0.74)  # colours
BLOOD = (0.30, 0.75, 0.60)  # share of each colour that full blood takes away


def render(version: int, seed: int, subject: int, size: int, side: str, eye: Eye) -> NDArray[np.uint8]:
    """The picture of one eye, uint8 [size, W, 3], W = ``ASPECT`` size."""
    rng = generator("eye picture", version, seed, subject, SIDES.index(side))
    rotation, shift_x, shift_y, zoom, exposure, contrast, gamma, shade_x, shade_y, noise = MACHINE.take(rng)
    radius = float(uniform(rng, *FIELD)) * size / 2.0
    middle = uniform(rng, -0.03, 0.03, 2) * size
    width = round(ASPECT * size)
    centre_x, centre_y = width / 2.0 + middle[0], size / 2.0 + (middle[1] if radius < 0.9 * size / 2.0 else 0.0)
    u = (np.arange(width) + 0.5 - centre_x)[None, :] / radius  # of the field
    v = (np.arange(size) + 0.5 - centre_y)[:, None] / radius
    cos, sin = np.cos(rotation), np.sin(rotation)
    x = (cos * (u - shift_x) + sin * (v - shift_y)) / zoom  # of the eye
    y = (cos * (v - shift_y) - sin * (u - shift_x)) / zoom

    def place(points: Array) -> Array:
        """Of the eye -> pixels, [K, 2]."""
        px, py = points.T * zoom
        return np.stack(
            [(cos * px - sin * py + shift_x) * radius + centre_x, (sin * px + cos * py + shift_y) * radius + centre_y],
            1,
        )

    canvas = Canvas(size, width, place, radius * zoom)
    colour = _fundus(eye, x, y, canvas)
    for lesion in eye.lesions:
        here = canvas.window(lesion.x, lesion.y, 2.0 * lesion.size)
        if lesion.kind == "tuft":
            _tangle(colour, lesion, canvas)
        else:
            _spot(colour[here], lesion, x[here], y[here], canvas.blur)
    out = np.hypot(u, v)
    light = (1.0 - eye.traits["vignette"] * out**2) * (1.0 + shade_x * u + shade_y * v) * (1.0 + exposure)
    light = light + 0.10 * bell(out - 0.97, 0.05)  # a bright rim, as many cameras give
    grey = np.clip((colour * light[:, :, None] - 0.4) * contrast + 0.4, 0.0, 1.0) ** gamma
    seen = edge(1.0 - out, 1.5 / radius)[:, :, None]
    grain = noise * normal(rng, size, width, 3)
    picture: NDArray[np.uint8] = np.rint(
        np.clip((grey + grain) * seen + 0.01 * np.abs(grain), 0.0, 1.0) * 255.0
    ).astype(np.uint8)
    return picture[:, ::-1] if side == "left" else picture


def _fundus(eye: Eye, x: Array, y: Array, canvas: Canvas) -> Array:
    """The healthy eye, [H, W, 3] from 0 to 1."""
    t = eye.traits
    wave, phase, amplitude = eye.texture.wave[0], eye.texture.phase[0], eye.texture.amplitude[0]
    texture = sum(
        a * np.cos(kx * x + ky * y + p) for kx, ky, p, a in zip(*wave, phase, amplitude, strict=True)
    )  # the choroid, seen through the retina
    colour = np.array([t["red"], t["green"], t["blue"]]) * (
        1.0 + np.asarray(texture)[:, :, None] * np.array([1.0, 1.6, 1.2])
    )
    macula = np.hypot(x - t["fovea_x"], y - t["fovea_y"])
    colour *= 1.0 - (0.30 * bell(macula, t["macula"]) + 0.12 * bell(macula, 0.03))[:, :, None] * np.array(
        [0.6, 1.0, 1.0]
    )
    away = np.hypot((x - t["disc_x"]) * t["disc_oval"], y - t["disc_y"]) / t["disc_size"]
    colour += 0.10 * bell(away - 1.0, 0.9)[:, :, None] * np.array([1.0, 0.8, 0.5])
    crescent = t["crescent"] * bell(away - 1.05, 0.14) * (x < t["disc_x"])
    colour = _over(colour, crescent, (0.95, 0.72, 0.42))
    colour = _over(colour, 0.92 * edge(1.0 - away, 0.22), DISC)
    colour = _over(colour, 0.85 * edge(t["cup"] - away, 0.25), CUP)
    dark, bright = tree(eye, canvas)
    colour *= 1.0 - t["blood"] * dark[:, :, None] * np.array(BLOOD)
    return np.asarray(colour + bright[:, :, None] * np.array([0.10, 0.07, 0.03]))


def _tangle(colour: Array, lesion: Lesion, canvas: Canvas) -> None:
    """Adds a tuft of fine new vessels to the picture, in place: loops that wind about each other."""
    s = np.linspace(0.0, 1.0, 3 * canvas.steps(10.0 * lesion.size))
    a, b = 2.0 * np.pi * s, lesion.turn
    reach = lesion.size * (0.55 + 0.25 * np.sin(5.0 * a + 3.0 * b) + 0.20 * np.sin(8.0 * a + 7.0 * b))
    turn = b + 3.0 * a + 0.9 * np.sin(4.0 * a + 5.0 * b)
    points = np.stack([lesion.x + reach * np.cos(turn), lesion.y + 0.8 * reach * np.sin(turn)], 1)
    stroke = canvas.stroke(points, 0.004 + 0.003 * np.sin(6.0 * a))
    colour *= 1.0 - 0.8 * stroke[:, :, None] * np.array(BLOOD)


def _spot(colour: Array, lesion: Lesion, x: Array, y: Array, pixel: float) -> None:
    """Adds any other lesion to the part of the picture around it, in place. ``pixel``: its width in the eye."""
    dx, dy, size = x - lesion.x, y - lesion.y, lesion.size
    cos, sin = np.cos(lesion.turn), np.sin(lesion.turn)
    along, across = (cos * dx + sin * dy) / size, (cos * dy - sin * dx) / size
    if lesion.kind == "cotton wool":  # pale and fluffy
        amount = 0.85 * edge(1.0 - np.hypot(along, 1.5 * across) + 0.15 * np.sin(5.0 * along + 3.0 * across), 0.9)
        colour[:] = _over(colour, amount, COTTON)
    else:
        shape = np.hypot(along, across)
        if lesion.kind == "haemorrhage":  # blots with ragged edges, some drawn out like flames
            shape = np.hypot(along * 0.8, across * (1.0 + 0.5 * (1.0 + np.cos(lesion.turn))))
            shape = shape + 0.18 * np.sin(4.0 * along + lesion.turn) * np.cos(5.0 * across)
        colour *= 1.0 - 0.85 * edge(1.0 - shape, 0.35 + 2.0 * pixel / size)[:, :, None] * np.array(BLOOD)


def _over(colour: Array, amount: Array, paint: tuple[float, float, float]) -> Array:
    """Paint laid over the picture, ``amount`` [H, W] of it."""
    return np.asarray(colour + amount[:, :, None] * (np.array(paint) - colour))
