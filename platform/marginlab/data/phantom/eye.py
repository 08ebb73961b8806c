"""Fundi: what a person's two eyes are like, and the lesions of diabetic retinopathy that make the grade (drawn by eye_picture.py).

x points to the nose, y down, in units of the radius of the field that the camera sees (about 22 degrees of the eye).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from marginlab.data.phantom.draw import LIMIT, Array, Texture, bounded, generator, shuffled, uniform

SIDES = ("left", "right")

# What a person looks like: typical value and spread between people, in units of the field's radius (colours: grey).
ANATOMY: dict[str, tuple[float, float]] = {
    "disc_x": (0.55, 0.040),
    "disc_y": (-0.03, 0.040),
    "disc_size": (0.155, 0.014),
    "disc_oval": (1.10, 0.050),
    "cup": (0.42, 0.110),
    "crescent": (0.35, 0.200),
    "fovea_x": (-0.15, 0.030),
    "fovea_y": (0.05, 0.030),
    "macula": (0.17, 0.030),
    "red": (0.76, 0.055),
    "green": (0.40, 0.040),
    "blue": (0.18, 0.040),
    "vignette": (0.30, 0.090),
    "veins": (0.022, 0.0025),
    "arteries": (0.015, 0.0020),
    "blood": (0.55, 0.080),
}
SIBLING = 0.85  # correlation of what the two eyes of one person look like
WAVES = 12
CHOROID = 0.035  # grey, of all waves together
TAPE = 640  # standard normal draws from which an eye's vessels grow

# Shares of eyes with the grades 0 to 3, summed up (facts of the published set: 73, 7, 15, 2.5 and 2 of a hundred).
GRADES = (0.735, 0.805, 0.955, 0.980)
BLOCK = 50  # of so many people, each fiftieth part of the range of illness is somebody's
APART = 0.045  # spread of the illness between two eyes: about seven pairs in eight have one grade
# Fewest and most of each lesion, per grade.
LESIONS: dict[str, tuple[tuple[int, int], ...]] = {
    "microaneurysm": ((0, 0), (3, 6), (10, 16), (18, 26), (18, 26)),
    "haemorrhage": ((0, 0), (0, 0), (3, 6), (12, 18), (14, 20)),
    "cotton wool": ((0, 0), (0, 0), (0, 0), (3, 6), (4, 7)),
    "tuft": ((0, 0), (0, 0), (0, 0), (0, 0), (2, 4)),
}
SIZES = {
    "microaneurysm": (0.018, 0.026),
    "haemorrhage": (0.035, 0.070),
    "cotton wool": (0.06, 0.10),
    "tuft": (0.1, 0.16),
}


@dataclass(frozen=True)
class Lesion:
    kind: str
    x: float
    y: float
    size: float  # radius
    turn: float  # radians


@dataclass(frozen=True)
class Eye:
    """``traits`` holds the values of ``ANATOMY``. The grade says which lesions there are."""

    traits: dict[str, float]
    tape: Array  # [TAPE]
    texture: Texture  # n = 1
    grade: int
    lesions: tuple[Lesion, ...]


def eyes(version: int, seed: int, subject: int) -> dict[str, Eye]:
    """Both eyes of a subject: alike, but not the same, each with a grade of its own."""
    rng = generator("eye", version, seed, subject)
    names = list(ANATOMY)
    z, tapes = _alike(rng, len(names)), _alike(rng, TAPE)
    angle = uniform(rng, 0.0, np.pi, 1, WAVES)
    pitch = np.clip(14.0 + 5.0 * bounded(rng, 1, WAVES), 5.0, 30.0)
    base = Texture.drawn(rng, angle, pitch, CHOROID)
    shifted = 0.4 * bounded(rng, 2, 1, WAVES)
    grades = both_grades(version, seed, subject)
    out = {}
    for s, side in enumerate(SIDES):
        traits = {k: ANATOMY[k][0] + ANATOMY[k][1] * float(z[s, i]) for i, k in enumerate(names)}
        own = generator("eye lesions", version, seed, subject, s)
        lesions = tuple(_lesions(own, traits, grades[s]))
        out[side] = Eye(
            traits, tapes[s], Texture(base.wave, base.phase + shifted[s], base.amplitude), grades[s], lesions
        )
    return out


def both_grades(version: int, seed: int, subject: int) -> tuple[int, int]:
    """Grades of the left and the right eye. Draws no eye.

    A person's illness is a number from 0 to 1, evenly dealt among each ``BLOCK`` people; one eye, at random, is as ill as
    that, the other nearly so. Both are then evenly distributed, and the shares of the grades are those of ``GRADES``.
    """
    deal = shuffled(generator("eye grades", version, seed, subject // BLOCK), BLOCK)
    rng = generator("eye illness", version, seed, subject)
    illness = (deal[subject % BLOCK] + rng.random()) / BLOCK
    other = np.abs(illness + APART * bounded(rng, 1)[0])  # reflected at 0 and at 1
    other = 1.0 - np.abs(1.0 - other)
    first, second = (int(np.searchsorted(GRADES, i, side="right")) for i in (illness, other))
    return (first, second) if rng.random() < 0.5 else (second, first)


def _alike(rng: Generator, count: int) -> Array:
    """Standard normal draws for both eyes, [2, count], correlated."""
    person, own = bounded(rng, count), bounded(rng, 2, count)
    return np.asarray(np.clip(np.sqrt(SIBLING) * person + np.sqrt(1.0 - SIBLING) * own, -LIMIT, LIMIT))


def _lesions(rng: Generator, t: dict[str, float], grade: int) -> list[Lesion]:
    """Anywhere in the field but on the optic disc and in the fovea; new vessels grow near the disc."""
    out = []
    for kind, counts in LESIONS.items():
        low, high = counts[grade]
        for _ in range(low + int(rng.random() * (high - low + 1))):
            size, turn = float(uniform(rng, *SIZES[kind])), float(uniform(rng, 0.0, 2.0 * np.pi))
            if kind == "tuft":
                away = t["disc_size"] * float(uniform(rng, 1.0, 2.2))
                out.append(
                    Lesion(kind, t["disc_x"] + away * np.cos(turn), t["disc_y"] + away * np.sin(turn), size, turn)
                )
                continue
            while True:
                x, y = uniform(rng, -0.82, 0.82, 2)
                disc = np.hypot(x - t["disc_x"], y - t["disc_y"]) > 1.5 * t["disc_size"] + size
                fovea = np.hypot(x - t["fovea_x"], y - t["fovea_y"]) > 0.06 + size
                if np.hypot(x, y) < 0.82 and disc and fovea:
                    out.append(Lesion(kind, float(x), float(y), size, turn))
                    break
    return out
