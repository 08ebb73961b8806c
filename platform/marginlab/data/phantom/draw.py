"""What the phantoms draw with: coordinates, soft edges, textures, and the X-ray machine.

A picture is computed from closed formulas in *anatomical* coordinates (x right, y down, the stored frame is [-1, 1] x [-1, 1]), so that
rotation, shift and size cost nothing and lose nothing. Everything is float64: differences between processors then stay far below one
grey level, and the stored bytes are the same everywhere.

Shapes: ``n`` images of one subject, drawn together; ``H`` = ``W`` = the stored size.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from marginlab.values import stable_seed

Array = NDArray[np.float64]
LIMIT = 2.5  # draws are cut off at this many standard deviations, so that every parameter is bounded


def generator(kind: str, version: int, seed: int, *where: int) -> Generator:
    """Random numbers that depend on what is drawn and where it belongs, and on nothing drawn before."""
    return np.random.default_rng([stable_seed("phantom", kind, version, seed), *where])


def normal(rng: Generator, *shape: int) -> Array:
    """Standard normal draws (Box and Muller), from ``rng.random`` alone: numpy keeps its stream from version to version."""
    radius = np.sqrt(-2.0 * np.log1p(-rng.random(shape)))
    return np.asarray(radius * np.cos(2.0 * np.pi * rng.random(shape)))


def bounded(rng: Generator, *shape: int) -> Array:
    """Standard normal draws, cut off at ``LIMIT``."""
    return np.clip(normal(rng, *shape), -LIMIT, LIMIT)


def uniform(rng: Generator, low: float, high: float, *shape: int) -> Array:
    return np.asarray(low + (high - low) * rng.random(shape))


def per_image(v: Array) -> Array:
    """[n] -> [n, 1, 1], to combine with [n, H, W]."""
    return v[:, None, None]


def edge(distance: Array, width: Array | float) -> Array:
    """0 outside (negative distance), 1 inside, a smooth cubic step over ``width``."""
    t = np.clip(distance / width + 0.5, 0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)


def bell(x: Array, width: Array | float) -> Array:
    """A bump of height 1 and compact support (|x| < 2 width), about as wide as a Gaussian of that standard deviation."""
    t = np.maximum(1.0 - (x / (2.0 * width)) ** 2, 0.0)
    return t * t


def shuffled(rng: Generator, count: int) -> NDArray[np.intp]:
    """0 .. count - 1 in random order."""
    return np.argsort(rng.random(count))


@dataclass(frozen=True)
class Texture:
    """A sum of plane waves: ``wave`` [n, 2, K] radians per unit, ``phase`` and ``amplitude`` [n, K]."""

    wave: Array
    phase: Array
    amplitude: Array

    def after(self, rate: Texture, years: Array) -> Texture:
        """The texture [n] years later, each of its parts moving at a constant rate."""
        return Texture(
            self.wave + rate.wave * years[:, None, None],
            self.phase + rate.phase * years[:, None],
            self.amplitude + rate.amplitude * years[:, None],
        )

    @classmethod
    def drawn(cls, rng: Generator, angle: Array, pitch: Array, grey: float) -> Texture:
        """Waves of the given directions (radians) and pitches (radians per unit), each [1, K], ``grey`` strong together."""
        strength = uniform(rng, 0.3, 1.0, *angle.shape)
        strength *= grey / np.sqrt((strength**2).sum()) * (1.0 + 0.25 * bounded(rng, 1)[0])
        wave = np.stack([pitch * np.cos(angle), pitch * np.sin(angle)], axis=1)
        return cls(wave, uniform(rng, 0.0, 2.0 * np.pi, *angle.shape), strength)

    @staticmethod
    def stack(textures: list[Texture]) -> Texture:
        return Texture(*(np.concatenate([getattr(t, f) for t in textures]) for f in ("wave", "phase", "amplitude")))


@dataclass(frozen=True)
class Acquisition:
    """How n pictures were taken. Fields are [n]; rotation in radians, shift in units of half the frame, noise in grey (0..1)."""

    rotation: Array
    shift_x: Array
    shift_y: Array
    zoom: Array
    exposure: Array
    contrast: Array
    gamma: Array
    shade_x: Array
    shade_y: Array
    noise: Array

    def coordinates(self, size: int) -> tuple[Array, Array]:
        """Anatomical coordinates of every pixel centre, each [n, H, W]."""
        axis = (np.arange(size) + 0.5) * (2.0 / size) - 1.0
        u = axis[None, None, :] - per_image(self.shift_x)
        v = axis[None, :, None] - per_image(self.shift_y)
        cos, sin = per_image(np.cos(self.rotation) / self.zoom), per_image(np.sin(self.rotation) / self.zoom)
        return cos * u + sin * v, cos * v - sin * u

    def waves(self, texture: Texture, size: int, origin_y: Array) -> Array:
        """The texture at every pixel [n, H, W], about zero mean, ``origin_y`` [n] being its y = 0.

        A plane wave stays one under rotation, shift and zoom, and splits into a factor per column and one per row.
        """
        axis = (np.arange(size) + 0.5) * (2.0 / size) - 1.0
        cos, sin = (np.cos(self.rotation) / self.zoom)[:, None], (np.sin(self.rotation) / self.zoom)[:, None]
        a, b = texture.wave[:, 0], texture.wave[:, 1]
        u, v = a * cos - b * sin, a * sin + b * cos  # [n, K] radians per half frame, along columns and rows
        phase = texture.phase - b * origin_y[:, None]
        column = np.exp(1j * u[:, None] * (axis[None, :, None] - self.shift_x[:, None, None]))
        row = texture.amplitude[:, None] * np.exp(
            1j * (v[:, None] * (axis[None, :, None] - self.shift_y[:, None, None]) + phase[:, None])
        )
        return np.asarray((row @ column.transpose(0, 2, 1)).real)

    def develop(self, density: Array, grain: Array) -> NDArray[np.uint8]:
        """Density [n, H, W] (0 air .. about 1 metal) and standard normal ``grain`` -> stored grey values, uint8 [n, H, W]."""
        size = density.shape[-1]
        axis = (np.arange(size) + 0.5) * (2.0 / size) - 1.0
        shade = per_image(self.shade_x) * axis[None, None, :] + per_image(self.shade_y) * axis[None, :, None]
        grey = (density - 0.5) * per_image(self.contrast) + 0.5 + per_image(self.exposure) + shade
        grey = np.clip(grey, 0.0, 1.0) ** per_image(self.gamma) + per_image(self.noise) * grain
        stored: NDArray[np.uint8] = np.rint(np.clip(grey, 0.0, 1.0) * 255.0).astype(np.uint8)
        return stored


@dataclass(frozen=True)
class Machine:
    """How much acquisition varies: half-ranges of uniform draws (radians, half frames, grey)."""

    rotation: float
    shift: float
    zoom: float
    exposure: float
    contrast: float
    gamma: float
    shade: float
    noise: tuple[float, float]

    def take(self, rng: Generator) -> Array:
        """One picture's settings, in the order of the fields of :class:`Acquisition`."""
        u = uniform(rng, -1.0, 1.0, 10)
        low, high = self.noise
        settings = (
            self.rotation * u[0],
            self.shift * u[1],
            self.shift * u[2],
            1.0 + self.zoom * u[3],
            self.exposure * u[4],
            np.exp(self.contrast * u[5]),
            np.exp(self.gamma * u[6]),
            self.shade * u[7],
            self.shade * u[8],
            low + (high - low) * 0.5 * (1.0 + u[9]),
        )
        return np.array(settings, dtype=np.float64)


def acquisition(settings: list[Array]) -> Acquisition:
    return Acquisition(*np.array(settings).T)
