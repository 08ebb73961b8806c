"""The picture of a chest. x points to the right of the picture, which is the patient's left (where the heart lies)."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from marginlab.data.phantom.chest import ANATOMY, Visit
from marginlab.data.phantom.draw import (
    Array,
    Machine,
    Texture,
    acquisition,
    bell,
    bounded,
    edge,
    generator,
    normal,
    per_image,
    uniform,
)

MACHINE = Machine(
    rotation=0.08, shift=0.08, zoom=0.05, exposure=0.11, contrast=0.25, gamma=0.25, shade=0.08, noise=(0.01, 0.04)
)


def render(version: int, seed: int, subject: int, size: int, visits: list[Visit]) -> NDArray[np.uint8]:
    """Pictures of one patient, uint8 [n, H, W], each the same whatever the others are."""
    rngs = [generator("chest picture", version, seed, subject, v.number) for v in visits]
    machine = acquisition([MACHINE.take(rng) for rng in rngs])
    breath = np.array(
        [0.05 * bounded(rng, 1)[0] - 0.06 * (v.view == "AP") for rng, v in zip(rngs, visits, strict=True)]
    )
    x, y = machine.coordinates(size)
    texture = Texture.stack([v.chest.texture for v in visits])
    years = np.array([v.years for v in visits])
    texture = texture.after(Texture.stack([v.chest.remodelling for v in visits]), years)
    vessels = machine.waves(texture, size, np.zeros(len(visits)))
    density, lung = _body(visits, x, y, breath, vessels, 2.5 / size + 0.01)
    for i, (v, rng) in enumerate(zip(visits, rngs, strict=True)):
        _passing(v, rng, x[i], y[i], density[i], lung[i], 1.0 / size + 0.012)
    grain = np.stack([normal(rng, size, size) for rng in rngs])
    return machine.develop(density, grain)


def _body(visits: list[Visit], x: Array, y: Array, breath: Array, vessels: Array, blur: float) -> tuple[Array, Array]:
    """Density of the chest itself and how much of each pixel is lung, both [n, H, W]."""
    t = {k: per_image(np.array([v.trait(k) for v in visits])) for k in ANATOMY}
    ap = per_image(np.array([float(v.view == "AP") for v in visits]))
    woman = per_image(np.array([float(v.chest.woman) for v in visits]))
    ax, left = np.abs(x), x > 0

    # Lungs: an arched field on either side, cut off below by the domes of the diaphragm.
    wall = t["cage_width"] * np.sqrt(np.clip((y - t["cage_top"]) / (1.25 + 0.3 * y), 0.0, 1.0))
    height = np.where(left, t["diaphragm_left"], t["diaphragm_right"]) + per_image(breath)
    u = (ax - 0.5 * t["cage_width"]) / (0.5 * t["cage_width"])
    diaphragm = height + t["dome"] * (u * u - 0.2)
    field = np.minimum(wall - ax, np.minimum(ax - t["lung_inner"], (diaphragm - y)))
    lung = edge(field, 2.0 * blur)

    body = edge(1.02 - 0.12 * np.clip(-y, 0.0, 1.0) * ax - ax + 0.3 * (y > -0.75), 0.2)
    neck = edge(y + 0.80 - 0.35 * (ax - 0.25), 0.12)
    density = 0.10 + t["tissue"] * np.minimum(body, np.maximum(neck, edge(0.30 - ax, 0.1)))
    density -= t["lung"] * lung * (1.0 - 0.15 * ap)

    # Ribs: bands that repeat down the cage; posterior parts fall away from the spine, anterior ones the other way.
    cage = edge(wall + 0.05 - ax, 0.05) * edge(0.85 - y, 0.2)
    back = y - t["rib_slope"] * ax + t["rib_bow"] * ax * ax
    ribs = edge(np.cos(2 * np.pi * (back / t["rib_spacing"] + t["rib_first"])) - 1.0 + 2.0 * t["rib_width"], 0.7)
    front = y + 0.9 * (t["cage_width"] - ax) * edge(ax - 0.3, 0.2)
    faint = edge(np.cos(2 * np.pi * (front / (1.3 * t["rib_spacing"]) + t["rib_first"])) - 0.4, 0.7) * edge(
        ax - 0.35, 0.2
    )
    density += cage * t["rib_density"] * (ribs + 0.35 * faint)
    collar = y - t["clavicle_y"] + t["clavicle_slope"] * (ax - 0.3) - 0.05 * ap
    density += 0.17 * bell(collar, 0.032) * edge(0.85 - ax, 0.1) * edge(ax - 0.08, 0.05)
    blade = ax - (0.72 - 0.08 * ap) - 0.15 * (y + 0.35)
    density += 0.07 * ap * edge(blade, 0.06) * bell(y + 0.35, 0.22)

    # Middle: spine, heart (magnified in AP views), aortic knob, hila with their vessels.
    density += 0.14 * edge(t["spine"] - ax, 0.05) * (1.0 + 0.25 * np.cos(2 * np.pi * y / 0.17))
    zoom = 1.0 + 0.14 * ap
    hx, hy = x - t["heart_x"], y - t["heart_y"] - 0.5 * per_image(breath)
    tilt = t["heart_tilt"]
    along, across = hx * np.cos(tilt) + hy * np.sin(tilt), hy * np.cos(tilt) - hx * np.sin(tilt)
    heart = edge(1.0 - np.hypot(along / (t["heart_width"] * zoom), across / (t["heart_height"] * zoom * 0.85)), 0.18)
    knob = edge(t["aorta"] - np.hypot(x - 0.13, y + 0.32), 0.06)
    mediastinum = edge(0.16 + 0.06 * edge(y, 0.8) - ax, 0.06)
    middle = np.maximum(np.maximum(heart, 0.8 * knob), 0.6 * mediastinum)
    density += 0.8 * t["lung"] * middle * lung + 0.05 * heart
    hila = bell(ax - t["lung_inner"] - 0.10, 0.09) * bell(y + 0.02 * left, 0.16)
    density += lung * (t["hilum"] * hila + vessels * (0.35 + 1.0 * bell(ax - 0.3, 0.3)))

    bubble = edge(t["bubble"] - np.hypot(x - 0.42, (y - height - 0.16) * 1.3), 0.06) * left
    density -= 0.20 * bubble * (1.0 - lung)
    density += woman * t["breast"] * edge(1.0 - np.hypot((ax - 0.48) / 0.34, (y - 0.38) / 0.26), 0.5)
    return np.clip(density, 0.0, 1.2), lung


def _passing(v: Visit, rng: Generator, x: Array, y: Array, density: Array, lung: Array, blur: float) -> None:
    """Adds opacities, fluid, catheters and electrodes to one picture, in place."""
    for finding in v.findings:
        side = -1.0 if rng.random() < 0.5 else 1.0
        cx, cy, r = (
            side * float(uniform(rng, 0.3, 0.6)),
            float(uniform(rng, -0.4, 0.3)),
            float(uniform(rng, 0.06, 0.16)),
        )
        if finding == "Effusion":
            density += 0.28 * lung * edge(y - float(uniform(rng, 0.25, 0.4)), 0.15) * (x * side > 0)
        elif finding == "Mass":
            density += 0.25 * lung * edge(0.6 * r - np.hypot(x - cx, y - cy), 0.04)
        else:
            density += 0.22 * lung * bell(np.hypot(x - cx, (y - cy) * float(uniform(rng, 0.6, 1.4))), r)
    for _ in range(v.lines):
        start, end, bow = (
            float(uniform(rng, -0.5, 0.5)),
            float(uniform(rng, -0.12, 0.15)),
            float(uniform(rng, -0.3, 0.3)),
        )
        s = np.clip((y + 0.9) / float(uniform(rng, 0.8, 1.4)), 0.0, 1.0)
        density += 0.35 * bell(x - start * (1 - s) - end * s - bow * s * (1 - s), blur) * (s > 0) * (s < 1)
        ex, ey = float(uniform(rng, -0.7, 0.7)), float(uniform(rng, -0.5, 0.6))
        density += 0.35 * edge(0.035 - np.hypot(x - ex, y - ey), blur)
