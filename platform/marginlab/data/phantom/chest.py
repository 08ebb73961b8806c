"""Chests over the years: rib cage, heart and diaphragm that stay, slow changes, and what comes and goes between two visits
(drawn by chest_picture.py)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from marginlab.data.phantom.draw import Texture, bounded, generator, uniform

# What stays: typical value and spread between people, in units of half the frame (counts and slopes: plain, density: grey).
ANATOMY: dict[str, tuple[float, float]] = {
    "cage_width": (0.80, 0.085),
    "cage_top": (-0.86, 0.068),
    "lung_inner": (0.15, 0.034),
    "rib_spacing": (0.165, 0.034),
    "rib_first": (0.50, 0.290),
    "rib_slope": (0.25, 0.238),
    "rib_bow": (0.45, 0.272),
    "rib_density": (0.15, 0.060),
    "rib_width": (0.30, 0.085),
    "clavicle_y": (-0.62, 0.068),
    "clavicle_slope": (0.18, 0.153),
    "heart_width": (0.33, 0.076),
    "heart_height": (0.30, 0.060),
    "heart_x": (0.13, 0.051),
    "heart_y": (0.24, 0.076),
    "heart_tilt": (0.55, 0.306),
    "aorta": (0.095, 0.037),
    "hilum": (0.14, 0.085),
    "spine": (0.10, 0.034),
    "diaphragm_right": (0.47, 0.093),
    "diaphragm_left": (0.53, 0.093),
    "dome": (0.20, 0.085),
    "bubble": (0.10, 0.068),
    "tissue": (0.54, 0.068),
    "lung": (0.36, 0.060),
    "breast": (0.10, 0.068),
}
# What moves: spread between people of the change per year.
AGEING: dict[str, float] = {
    "rib_slope": 0.047,
    "rib_bow": 0.051,
    "rib_first": 0.070,
    "rib_density": 0.009,
    "heart_width": 0.014,
    "heart_tilt": 0.058,
    "hilum": 0.014,
    "diaphragm_right": 0.019,
    "diaphragm_left": 0.019,
    "dome": 0.014,
    "tissue": 0.014,
    "lung": 0.012,
    "clavicle_slope": 0.023,
}
GROWTH = {"heart_width": 0.004, "aorta": 0.003, "rib_density": -0.002}  # of everyone, per year
WAVES = 12
VESSELS = 0.060  # grey, of all waves together
FINDINGS = ("Infiltration", "Mass", "Effusion", "Consolidation")


@dataclass(frozen=True)
class Chest:
    """One patient for life. ``rates`` are per year; ``bedridden`` is the chance that a picture is taken AP."""

    traits: dict[str, float]
    rates: dict[str, float]
    woman: bool
    bedridden: float
    texture: Texture  # n = 1
    remodelling: Texture


@dataclass(frozen=True)
class Visit:
    """One picture: ``number`` is the follow-up number, ``years`` the time since the first picture."""

    chest: Chest
    number: int
    years: float
    view: str  # "AP" or "PA"
    findings: tuple[str, ...]
    lines: int  # catheters and tubes

    def trait(self, name: str) -> float:
        """A parameter at this visit, kept within what a body can be."""
        typical, spread = ANATOMY[name]
        moved = self.chest.traits[name] + self.chest.rates.get(name, 0.0) * self.years
        return float(np.clip(moved, typical - 3.5 * spread, typical + 3.5 * spread))

    @property
    def labels(self) -> str:
        """The ``Finding Labels`` of the data set's table."""
        wide = ("Cardiomegaly",) if self.trait("heart_width") > 0.42 else ()
        return "|".join((*wide, *self.findings)) or "No Finding"


def chest(version: int, seed: int, subject: int) -> Chest:
    rng = generator("chest", version, seed, subject)
    z, drift = bounded(rng, len(ANATOMY)), bounded(rng, len(AGEING))
    rates = {k: s * d for (k, s), d in zip(AGEING.items(), drift, strict=True)}
    rates.update({k: rates.get(k, 0.0) + g * float(uniform(rng, 0.0, 2.0)) for k, g in GROWTH.items()})
    angle = uniform(rng, 0.0, np.pi, 1) + 0.6 * bounded(rng, 1, WAVES)
    pitch = 14.0 + 4.0 * bounded(rng, 1)[0] + 4.0 * bounded(rng, 1, WAVES)
    texture = Texture.drawn(rng, angle, np.clip(pitch, 5.0, 40.0), VESSELS)
    return Chest(
        traits={k: m + s * z[i] for i, (k, (m, s)) in enumerate(ANATOMY.items())},
        rates=rates,
        woman=bool(rng.random() < 0.44),
        bedridden=float(rng.random() ** 1.5),
        texture=texture,
        remodelling=Texture(
            0.35 * bounded(rng, 1, 2, WAVES),
            0.25 * bounded(rng, 1, WAVES),
            0.07 * bounded(rng, 1, WAVES) * texture.amplitude,
        ),
    )


def visit(version: int, seed: int, subject: int, person: Chest, number: int, years: float) -> Visit:
    """What is seen on one day, over and above the anatomy."""
    rng = generator("chest visit", version, seed, subject, number)
    ap = bool(rng.random() < person.bedridden)
    ill = rng.random(len(FINDINGS)) < (0.16 if ap else 0.08)
    return Visit(
        chest=person,
        number=number,
        years=years,
        view="AP" if ap else "PA",
        findings=tuple(f for f, i in zip(FINDINGS, ill, strict=True) if i),
        lines=int((rng.random(3) < (0.35 if ap else 0.04)).sum()),
    )
