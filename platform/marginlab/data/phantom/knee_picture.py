"""The picture of a knee.

x points to the outside (lateral) of a **left** knee as it is shown on a radiograph; a right knee is drawn as a left one and stored
as its mirror image, which is how it would have been taken. The joint is at y = 0.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from marginlab.data.phantom.draw import (
    Acquisition,
    Array,
    Machine,
    Texture,
    acquisition,
    bell,
    edge,
    generator,
    normal,
    per_image,
)
from marginlab.data.phantom.knee import ANATOMY, JOINT_SPACE, SIDES, Visit

MACHINE = Machine(
    rotation=0.10, shift=0.08, zoom=0.05, exposure=0.11, contrast=0.25, gamma=0.25, shade=0.08, noise=(0.01, 0.04)
)


def render(version: int, seed: int, subject: int, size: int, visits: list[Visit]) -> NDArray[np.uint8]:
    """Pictures of one subject, uint8 [n, H, W], each the same whatever the others are."""
    rngs = [generator("knee picture", version, seed, subject, v.months, SIDES.index(v.side)) for v in visits]
    machine = acquisition([MACHINE.take(rng) for rng in rngs])
    grain = np.stack([normal(rng, size, size) for rng in rngs])
    pictures = machine.develop(_density(machine, size, visits), grain)
    for i, v in enumerate(visits):
        if v.side == "R":
            pictures[i] = pictures[i, :, ::-1]
    return pictures


def _density(machine: Acquisition, size: int, visits: list[Visit]) -> Array:
    """What the rays meet, [n, H, W]: 0 air, 1 metal."""
    t = {k: per_image(np.array([v.knee.traits[k] for v in visits])) for k in ANATOMY}
    years = per_image(np.array([v.months / 12.0 for v in visits]))
    medial, lateral = (per_image(a) for a in np.array([v.knee.space(v.months) for v in visits]).T)
    fm, fl, tm, tl = (per_image(a) for a in np.array([v.knee.spurs(v.months) for v in visits]).T)
    metal = per_image(np.array([float(v.knee.replaced(v.months)) for v in visits]))
    softening = per_image(np.array([v.knee.softening for v in visits]))
    swelling = per_image(np.array([v.knee.swelling for v in visits]))

    x, y = machine.coordinates(size)
    y = y - t["joint_y"]
    blur = 2.5 / size + 0.01
    ax, outside = np.abs(x), x > 0
    half_gap = 0.5 * np.where(outside, lateral, medial)
    line = t["tibia_slope"] * x  # the joint line; 0 in the middle

    # Femur: two condyles below, a notch between them, a shaft above; osteophytes widen the rim.
    curve = (
        np.where(outside, t["condyle_lateral"], t["condyle_medial"]) * (2.0 * ax / t["femur_width"] - 1.0) ** 2 * 0.5
    )
    bottom = line - half_gap - curve - t["notch_depth"] * bell(x, t["notch_width"])
    spread = edge(y + 0.18 + 0.5 * t["femur_flare"], t["femur_flare"])
    width = t["femur_shaft"] + (t["femur_width"] - t["femur_shaft"]) * spread
    width = width + np.where(outside, fl, fm) * bell(y + 0.14, 0.06)
    femur = np.minimum(bottom - y, width - ax)

    # Tibia: a plateau with two spines, narrowing to the shaft.
    spines = t["spine_height"] * (bell(x - t["spine_gap"], 0.035) + 0.8 * bell(x + t["spine_gap"], 0.035))
    top = line + half_gap - spines
    spread = edge(0.12 + 0.5 * t["tibia_flare"] - y, t["tibia_flare"])
    width = t["tibia_shaft"] + (t["tibia_width"] - t["tibia_shaft"]) * spread
    width = width + np.where(outside, tl, tm) * bell(y - 0.12, 0.06)
    tibia = np.minimum(y - top, width - ax)

    fx = x - 0.88 * t["tibia_width"] - t["fibula_x"] + 0.08 * (y - 0.4)
    fibula = np.minimum(t["fibula_width"] - np.abs(fx), y - t["fibula_top"] - 4.0 * fx * fx)
    patella = 1.0 - np.hypot(x - t["patella_x"], (y - t["patella_y"]) * 0.9) / t["patella_size"]
    tissue = t["tissue"] + swelling * years - 0.10 * y * y - ax

    texture = Texture.stack([v.knee.texture for v in visits])
    rate = Texture.stack([v.knee.remodelling for v in visits])
    trabeculae = machine.waves(texture.after(rate, years[:, 0, 0]), size, t["joint_y"][:, 0, 0])
    bone = t["density"] - softening * years
    inside = np.maximum(edge(femur, blur), edge(tibia, blur))
    rim = t["cortex"] * (bell(femur - 0.02, 0.03) + bell(tibia - 0.02, 0.03) + 0.5 * bell(fibula - 0.02, 0.025))
    worn = 1.0 - np.minimum(half_gap * 2.0 / JOINT_SPACE, 1.0)
    sclerosis = 0.20 * worn * bell(tibia - 0.04, 0.05) * (np.abs(y) < 0.25)
    density = 0.08 + 0.24 * edge(tissue, 0.12) * (1.0 - 0.25 * ax)
    density += inside * (bone + trabeculae + sclerosis) + rim * (1.0 - 2.0 * softening * years)
    density += 0.6 * bone * edge(fibula, blur) * (1.0 - 0.5 * inside) + 0.09 * edge(patella, 0.15)
    cap = edge(0.13 - femur, blur) * edge(femur, blur) * edge(y + 0.35, blur)  # over the condyles
    tray = edge(0.07 - tibia, blur) * edge(tibia, blur) * edge(0.25 - y, blur)  # on the plateau, with a stem
    stem = edge(0.05 - ax, blur) * edge(y, blur) * edge(0.5 - y, blur) * edge(tibia, blur)
    implant = np.maximum(cap, np.maximum(tray, stem))
    return density + metal * implant * (1.05 - density)
