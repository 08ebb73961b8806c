"""What a number of seeds can show: before a study, from the design alone; after one, from the variance that it found."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import stats

from marginlab.inference import LEVEL, Spread, leaning, training

POWER = 0.8
MOST_SEEDS = 10_000  # beyond it nobody counts
_STUDIES = 4_000  # simulated to find the power of one number of seeds


@dataclass(frozen=True)
class Parts:
    """The variance of a mean difference over ``seeds`` seeds, by what would shrink it: an ``inference.Spread`` of one study."""

    searches: float  # more replicates; 0 with one, where it is unknown
    seeds: float  # more seeds
    subjects: float  # more test subjects; 0 where they are taken as given
    units: tuple[int, int, int]  # replicates, seeds, subjects
    noise: float = 0.0  # of the seeds' part, what differs from search to search

    @classmethod
    def of(cls, s: Spread) -> Parts:
        return cls(float(s.searches), float(s.seeds), float(s.subjects), s.units, float(s.noise))

    def se(self, seeds: np.ndarray | int) -> np.ndarray:
        """What the standard error would be over so many seeds."""
        return np.sqrt(self.searches + self._by_seeds(seeds) + self.subjects)

    def df(self, seeds: np.ndarray | int) -> np.ndarray:
        """The degrees of freedom of :meth:`se`, as ``inference`` has them."""
        r, _, i = self.units
        n = np.asarray(seeds)
        parts = (
            (self.searches, max(r - 1, 1)),
            (self._by_seeds(n), np.maximum(n - 1, 1)),
            (self.subjects, max(i - 1, 1)),
        )
        leaned = [leaning(df) * v for v, df in parts]
        bend = sum(x**2 / df for x, (_, df) in zip(leaned, parts, strict=True))
        if not np.any(bend):
            return np.maximum(n - 1.0, 1.0)
        return np.asarray(np.maximum(sum(leaned) ** 2 / bend, 1.0))

    def _by_seeds(self, seeds: np.ndarray | int) -> np.ndarray:
        return np.asarray(self.seeds * self.units[1] / np.asarray(seeds))

    def found(self, seeds: int) -> float:
        """The true difference that so many seeds find in four studies of five.

        With one replicate that of :meth:`reach`. With few replicates the interval's own width varies a lot from study to study,
        which the formula does not know (its power would be 65% to 78%): it is solved for over simulated mean squares.
        """
        r, _, i = self.units
        if r == 1 or not (whole := float(self.se(seeds))):
            return float(self.reach(seeds)[1])
        rng, noise = np.random.default_rng(0), self.noise * self.units[1] / seeds
        mean = {"a": (self.searches + noise, r - 1), "b": (max(float(self._by_seeds(seeds)), noise), seeds - 1)}
        mean["ab"] = (noise, (r - 1) * (seeds - 1))
        squares = {name: v * rng.chisquare(df, _STUDIES) / df for name, (v, df) in mean.items()}
        block = training(squares, (r, seeds, i))
        bend = block.bend + self.subjects**2 / max(i - 1, 1)
        df = np.maximum((block.leaned + self.subjects) ** 2 / bend, 1.0)
        half = stats.t.ppf((1 + LEVEL) / 2, df) * np.sqrt(block.variance + self.subjects)
        low, high = 0.0, float(half.max()) + 10 * whole
        for _ in range(40):
            middle = (low + high) / 2
            enough = float(np.mean(stats.norm.cdf((middle - half) / whole))) >= POWER
            low, high = (low, middle) if enough else (middle, high)
        return high

    def reach(self, seeds: np.ndarray | int) -> tuple[np.ndarray, np.ndarray]:
        """The least mean difference whose interval leaves out zero, and the true one that does so in four studies of five.

        t[0.975] se and (t[0.975] + t[0.8]) se, at :meth:`df`.
        """
        se, df = self.se(seeds), self.df(seeds)
        edge, beyond = (stats.t.ppf(q, df) * se for q in ((1 + LEVEL) / 2, POWER))
        return np.asarray(edge), np.asarray(edge + beyond)


def needed(parts: Parts, distance: float) -> int | None:
    """The number of seeds (all of them, not further ones) at which a true difference of ``distance`` is found with 80% power.

    None without a distance, where the searches and subjects alone hide it, or beyond 10,000 seeds.
    """
    if distance <= 0:
        return None
    if parts.units[0] > 1:
        return _bisected(parts, distance)
    n = np.arange(2, MOST_SEEDS + 1)
    enough = np.flatnonzero(parts.reach(n)[1] <= distance)
    return int(n[enough[0]]) if len(enough) else None


def _bisected(parts: Parts, distance: float) -> int | None:
    few, many = 1, MOST_SEEDS
    if parts.found(many) > distance:
        return None
    while many - few > 1:
        middle = (few + many) // 2
        few, many = (few, middle) if parts.found(middle) <= distance else (middle, many)
    return many


@dataclass(frozen=True)
class Resolution:
    """What ``n`` seeds can show, known before any is trained. None where nothing can be shown.

    ``shown`` and ``found`` are in standard deviations of the paired differences over seeds.
    """

    n: int
    p: float | None = None  # the least that an exact two-sided test of the differences' signs can give
    shown: float | None = None  # the least observed mean difference whose interval excludes zero
    found: float | None = None  # the true one that does so in four studies of five

    def scaled(self, sd: float) -> tuple[float, float] | None:
        """``shown`` and ``found`` in the metric's own units, for differences of this standard deviation."""
        return None if self.shown is None or self.found is None else (self.shown * sd, self.found * sd)


def resolution(seeds: int) -> Resolution:
    """p = 2 / 2^n: of all sign flips of n differences the observed one and its mirror image are the most extreme.

    shown = t[0.975, n-1] / sqrt(n), found = (t[0.975, n-1] + t[0.8, n-1]) / sqrt(n).
    """
    if seeds < 2:
        return Resolution(seeds)
    edge, beyond = (float(stats.t.ppf(q, seeds - 1)) for q in ((1 + LEVEL) / 2, POWER))
    return Resolution(seeds, 2.0 ** (1 - seeds), edge / math.sqrt(seeds), (edge + beyond) / math.sqrt(seeds))


@dataclass(frozen=True)
class Design:
    """Whether a study can be called confirmatory: whether its seeds could show a difference even without assumptions.

    The interval assumes that differences over seeds are about normal, which so few cannot confirm. A test that assumes
    nothing but symmetry, all sign flips, gives no p below 2 / 2^seeds. Where even that one could not reach 0.05 (divided by
    the number of contrasts: Holm's first step), the design rests on the assumption alone, and is exploratory.
    """

    seeds: int
    contrasts: int  # one per dataset; 0: none was declared

    @property
    def p(self) -> float:
        """The least that the sign flips can give."""
        return min(1.0, 2.0 ** (1 - self.seeds))

    @property
    def level(self) -> float:
        return (1 - LEVEL) / max(self.contrasts, 1)

    @property
    def least(self) -> int:
        """The number of seeds that would do."""
        return math.ceil(1 - math.log2(self.level))

    @property
    def confirmatory(self) -> bool:
        return self.contrasts > 0 and self.p <= self.level

    def why(self) -> str:
        """Why the design is exploratory; empty where it is not."""
        if self.contrasts == 0:
            return "no contrast is declared"
        if self.confirmatory:
            return ""
        datasets = "" if self.contrasts == 1 else f" (0.05 over {self.contrasts} datasets)"
        seeds = "1 seed" if self.seeds == 1 else f"{self.seeds} seeds"
        return (
            f"{seeds} cannot reach p = {self.level:.3g}{datasets} without assumptions, because their signs alone give "
            f"{self.p:.2g} at best; {self.least} seeds can"
        )
