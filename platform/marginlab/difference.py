"""One paired difference with its uncertainty, and what follows from it: a verdict, or the seeds that would give one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from marginlab import inference, reach
from marginlab.reach import Parts


@dataclass(frozen=True)
class Difference:
    """A paired difference: its mean, standard error and 95% interval; None where one seed, or none, cannot tell."""

    n: int  # seeds; of a cross-check: single models
    mean: float | None = None
    sd: float | None = None  # over seeds
    se: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None  # two-sided, of no difference
    df: float | None = None
    replicates: int = 1
    subjects: int = 0  # that the interval draws anew; 0: it takes the test subjects as they are
    queries: int = 0
    parts: Parts | None = None  # of the variance
    left_out: int = 0  # pairs of trained seeds that lack their counterpart in another replicate

    @classmethod
    def of(cls, differences: Sequence[float]) -> Difference:
        """From one figure per seed: the t interval over seeds."""
        return cls.measured(np.asarray(differences, dtype=float).reshape(1, -1, 1))

    @classmethod
    def measured(
        cls, d: np.ndarray, subject: np.ndarray | None = None, draws: int = inference.DRAWS, seed: int = 0
    ) -> Difference:
        """From differences [R, S, Q]; the standard error is the bootstrap's, or with ``draws=0`` its limit."""
        r, n, q = d.shape
        if n < 2 or q == 0:
            return cls(n if q else 0, float(d.mean()) if d.size else None, replicates=max(r, 1))
        y = d if subject is None else inference.by_subject(d, subject)
        s = inference.spread(y)
        se = inference.bootstrap(y, draws, seed).std(0) if draws and subject is not None else None
        known = 0 if subject is None else y.shape[-1]
        found = cls._of(n, d.mean((0, 2)), inference.interval(s, se))
        return replace(found, replicates=r, subjects=known, queries=q if known else 0, parts=Parts.of(s))

    @classmethod
    def of_models(cls, d: np.ndarray) -> Difference | None:
        """The cross-check from single models' differences [J]: ``inference.corrected``; None below two."""
        if len(d) < 2:
            return None
        return cls._of(len(d), d, inference.corrected(d))

    @classmethod
    def _of(cls, n: int, each: np.ndarray, i: inference.Interval) -> Difference:
        mean, se, low, high, p, df = map(float, (i.mean, i.se, i.low, i.high, i.p, i.df))
        return cls(n, mean, float(each.std(ddof=1)), se, low, high, p, df)

    @property
    def covers(self) -> tuple[str, ...]:
        """What the interval draws anew."""
        known = {"subjects": self.subjects > 1, "seeds": True, "searches": self.replicates > 1}
        return tuple(name for name, is_known in known.items() if is_known) if self.low is not None else ()

    def p_above(self, value: float) -> float | None:
        """One-sided, of a true difference of ``value`` or less."""
        if self.mean is None or self.se is None or self.df is None:
            return None
        return float(inference.above(*map(np.asarray, (self.mean - value, self.se, self.df))))

    def reach(self, seeds: int) -> tuple[float, float] | None:
        """What so many seeds would show and find, in the metric's own units, were the spread as observed."""
        if self.parts is None or seeds < 2:
            return None
        return float(self.parts.reach(seeds)[0]), self.parts.found(seeds)


def judge(difference: Difference, margin: float) -> str:
    """``better``: the 95% interval lies above zero; ``matches``: above minus the margin; ``worse``: below zero.

    In this order. So *matches* says that the first arm is surely not worse by more than the margin, whatever its chance of
    being better. An arm that is no different is called better in 2.5% of studies and worse in 2.5%; one that is worse by
    exactly the margin is called matching or better in 2.5%.
    """
    if difference.low is None or difference.high is None:
        return "undecided"
    if difference.low > 0:
        return "better"
    if difference.low >= -margin:
        return "matches"
    return "worse" if difference.high < 0 else "undecided"


def seeds_needed(difference: Difference, margin: float) -> int | None:
    """The number of seeds (all of them, not further ones) that would decide, were the mean and spread as observed.

    The smallest n with (t[0.975] + t[0.8]) se(n) <= d, which decides with a probability of about 80%. d is how far the mean
    lies from what it must be told from: above minus the margin (matches) or below zero (worse), whichever is further off.
    More seeds shrink the seeds' part of the variance, not that of subjects and searches: None where these alone leave it
    undecided; also without a spread, without a distance, or beyond 10,000 seeds.
    """
    if difference.sd is None or difference.mean is None:
        return None
    parts = difference.parts or Parts(0.0, difference.sd**2 / difference.n, 0.0, (1, difference.n, 1))
    return reach.needed(parts, max(difference.mean + margin, -difference.mean))
