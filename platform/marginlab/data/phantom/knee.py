"""Knees that age: a few anatomical parameters that stay, and changes that move with the years (drawn by knee_picture.py)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from marginlab.data.phantom.draw import LIMIT, Array, Texture, bounded, generator, uniform

SIDES = ("R", "L")

# What stays: typical value and spread between people, in units of half the frame (slopes: per unit, density: grey).
ANATOMY: dict[str, tuple[float, float]] = {
    "femur_width": (0.58, 0.075),
    "femur_shaft": (0.33, 0.050),
    "femur_flare": (0.50, 0.110),
    "condyle_medial": (0.25, 0.100),
    "condyle_lateral": (0.25, 0.100),
    "notch_width": (0.12, 0.040),
    "notch_depth": (0.18, 0.070),
    "tibia_width": (0.58, 0.080),
    "tibia_shaft": (0.28, 0.055),
    "tibia_flare": (0.50, 0.130),
    "tibia_slope": (0.00, 0.110),
    "spine_height": (0.11, 0.040),
    "spine_gap": (0.08, 0.026),
    "fibula_x": (0.00, 0.050),
    "fibula_top": (0.36, 0.110),
    "fibula_width": (0.085, 0.025),
    "patella_x": (0.02, 0.100),
    "patella_y": (-0.42, 0.130),
    "patella_size": (0.25, 0.055),
    "joint_y": (0.05, 0.050),
    "density": (0.30, 0.055),
    "cortex": (0.17, 0.065),
    "tissue": (0.88, 0.110),
}
SIBLING = 0.85  # correlation of a parameter between the two knees of one person
JOINT_SPACE, JOINT_SPREAD = 0.105, 0.018  # of a young knee
JOINT_FLOOR = 0.02  # bone on bone
WAVES = 12
TRABECULAE = 0.075  # grey, of all waves together
GRADES = (0.15, 0.32, 0.52, 0.75)  # wear at which the Kellgren-Lawrence grade becomes 1, 2, 3, 4
IMPLANT_RATE = 0.008  # per knee and year


@dataclass(frozen=True)
class Knee:
    """One knee for life. ``traits`` holds the values of ``ANATOMY``; rates are per year."""

    traits: dict[str, float]
    joint_space: tuple[float, float]  # medial, lateral, at the first visit
    narrowing: tuple[float, float]
    osteophytes: tuple[float, ...]  # first visit: medial femur, lateral femur, medial tibia, lateral tibia
    growth: tuple[float, ...]
    softening: float  # bone density lost
    swelling: float  # soft tissue gained
    implant_months: float  # the operation; may lie after every visit
    texture: Texture  # n = 1
    remodelling: Texture  # how wave, phase and amplitude move per year

    def space(self, months: float) -> tuple[float, float]:
        """Joint space at a visit, medial and lateral."""
        years = months / 12.0
        medial, lateral = (
            max(JOINT_FLOOR, s - r * years) for s, r in zip(self.joint_space, self.narrowing, strict=True)
        )
        return medial, lateral

    def spurs(self, months: float) -> tuple[float, ...]:
        """Size of the four osteophytes at a visit."""
        return tuple(min(0.16, s + r * months / 12.0) for s, r in zip(self.osteophytes, self.growth, strict=True))

    def replaced(self, months: float) -> bool:
        return months >= self.implant_months

    def grade(self, months: float) -> int:
        """Kellgren-Lawrence grade, 0..4, from the narrower compartment and the osteophytes."""
        worn = 1.0 - (min(self.space(months)) - JOINT_FLOOR) / (JOINT_SPACE + LIMIT * JOINT_SPREAD - JOINT_FLOOR)
        wear = 0.6 * worn + 0.4 * max(self.spurs(months)) / 0.16
        return int(np.searchsorted(GRADES, wear, side="right"))


def knees(version: int, seed: int, subject: int) -> dict[str, Knee]:
    """Both knees of a subject: alike, but not the same."""
    rng = generator("knee", version, seed, subject)
    names = list(ANATOMY)
    person, own = bounded(rng, len(names)), bounded(rng, 2, len(names))
    z = np.clip(np.sqrt(SIBLING) * person + np.sqrt(1.0 - SIBLING) * own, -LIMIT, LIMIT)
    base = _trabeculae(rng)
    health = float(uniform(rng, 0.0, 1.0))  # of the person: how fast both joints wear
    out = {}
    for s, side in enumerate(SIDES):
        wear = np.clip(health + 0.25 * bounded(rng, 2), 0.0, 1.5)
        out[side] = Knee(
            traits={k: ANATOMY[k][0] + ANATOMY[k][1] * z[s, i] for i, k in enumerate(names)},
            joint_space=_pair(np.maximum(JOINT_FLOOR, JOINT_SPACE + JOINT_SPREAD * bounded(rng, 2) - 0.02 * wear)),
            narrowing=_pair(0.002 + 0.006 * wear),
            osteophytes=tuple(0.04 * uniform(rng, 0.0, 1.0, 4) * wear.max()),
            growth=tuple(0.013 * uniform(rng, 0.1, 1.0, 4) * (0.2 + wear.max())),
            softening=0.010 * float(uniform(rng, 0.0, 1.0)),
            swelling=0.012 * float(bounded(rng, 1)[0]),
            implant_months=float(-np.log1p(-rng.random()) * 12.0 / IMPLANT_RATE),
            texture=Texture(
                base.wave + 0.4 * bounded(rng, 1, 2, WAVES),
                base.phase + 0.4 * bounded(rng, 1, WAVES),
                base.amplitude * (1.0 + 0.15 * bounded(rng, 1, WAVES)),
            ),
            remodelling=Texture(
                0.25 * bounded(rng, 1, 2, WAVES),
                0.20 * bounded(rng, 1, WAVES),
                0.08 * bounded(rng, 1, WAVES) * base.amplitude,
            ),
        )
    return out


def _pair(v: Array) -> tuple[float, float]:
    return float(v[0]), float(v[1])


def _trabeculae(rng: np.random.Generator) -> Texture:
    """Waves mostly across the load (stripes along the bone), each person with their own pitch and direction."""
    angle = 0.35 * bounded(rng, 1)[0] + 0.45 * bounded(rng, 1, WAVES)
    pitch = 18.0 + 4.0 * bounded(rng, 1)[0] + 5.0 * bounded(rng, 1, WAVES)
    return Texture.drawn(rng, angle, np.clip(pitch, 5.0, 40.0), TRABECULAE)


@dataclass(frozen=True)
class Visit:
    """One picture."""

    knee: Knee
    side: str
    months: int
