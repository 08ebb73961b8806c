"""Whole studies without training: noisy trials, the winner of each search, its runs on fresh seeds and folds, the decision.

Both arms draw from the same distributions, so by construction neither is better: their expected difference is ``difference``.
What a run scores on a query is a sum of effects; all sizes are in units of the metric (mAP).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from marginlab import inference
from marginlab.difference import Difference, judge

MARGIN = 0.01
AT_ONCE = 250  # studies, for the memory's sake


@dataclass(frozen=True)
class Scenario:
    """Sizes are standard deviations."""

    replicates: int = 3
    seeds: int = 5
    folds: int = 5
    subjects: int = 200
    queries: int = 2  # per subject on average
    trials: int = 12  # of a search
    difference: float = 0.0  # what the first arm is better by, whatever its configuration
    config: float = 0.010  # between configurations, before the best is chosen
    fold: float = 0.004  # of a configuration on one fold's training subjects
    noise: float = 0.010  # between single trainings of one configuration on one fold
    seed: float = 0.004  # what a seed does to an arm, whatever the configuration and fold
    subject: float = 0.05  # what an arm does to a subject
    taste: float = 0.03  # what a configuration does to a subject
    query: float = 0.10  # what is left of a seed's ensemble on one query
    heavy: float | None = None  # degrees of freedom of Student's t that noise and seeds follow instead of the normal
    skewed: bool = False  # subject effects and query noise follow an exponential
    uneven: bool = False  # subjects have 1, 1, 1 ... and one has a third of all queries

    def owners(self) -> np.ndarray:
        """Each query's subject, int64 [Q]."""
        i = np.arange(self.subjects)
        count = np.ones(self.subjects, dtype=int) if self.uneven else 1 + i % (2 * self.queries - 1)
        count[0] += self.subjects // 2 if self.uneven else 0
        return np.repeat(i, count)


def studies(c: Scenario, n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Differences [n, R, S, Q] of ``n`` studies, and what each is an estimate of [n].

    With several replicates that is the arms' expected difference; with one it is that of the two configurations found, on
    these folds: nothing else could be told from a single search.
    """
    r, s, f, owner = c.replicates, c.seeds, c.folds, c.owners()
    arms = (n, 2, r)
    # The search: every trial is trained once, on the first fold.
    quality = rng.normal(0, c.config, (*arms, c.trials))
    on_fold = rng.normal(0, c.fold, (*arms, c.trials, f))
    seen = quality + on_fold[..., 0] + _noise(c, c.noise, (*arms, c.trials), rng)
    winner = seen.argmax(-1)[..., None]
    found = np.take_along_axis(quality, winner, -1)[..., 0]
    found = found + np.take_along_axis(on_fold, winner[..., None], -2)[..., 0, :].mean(-1)
    # Confirmation: every seed on every fold, whose models answer as one.
    runs = _noise(c, c.noise, (*arms, s, f), rng).mean(-1) + _noise(c, c.seed, (n, 2, 1, s), rng)
    level = found[..., None] + runs  # [n, 2, R, S]
    person = _effect(c, c.subject, (n, 2, 1, 1, c.subjects), rng) + _effect(c, c.taste, (*arms, 1, c.subjects), rng)
    left = _effect(c, c.query, (*arms, s, len(owner)), rng)
    left += person[..., owner] + level[..., None]
    truth = found[:, 0, 0] - found[:, 1, 0] if r == 1 else np.zeros(n)
    return left[:, 0] - left[:, 1] + c.difference, truth + c.difference


def _noise(c: Scenario, size: float, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    if c.heavy is None:
        return rng.normal(0, size, shape)
    return rng.standard_t(c.heavy, shape) * size


def _effect(c: Scenario, size: float, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    if c.skewed:
        return (rng.exponential(1.0, shape) - 1.0) * size
    return rng.normal(0, size, shape)


@dataclass(frozen=True)
class Decisions:
    interval: inference.Interval
    truth: np.ndarray
    verdicts: list[str]

    def missed(self) -> float:
        """The share of studies whose 95% interval leaves out the truth."""
        return float(np.mean((self.interval.low > self.truth) | (self.interval.high < self.truth)))

    def said(self, *verdicts: str) -> float:
        return float(np.mean([v in verdicts for v in self.verdicts]))


def decide(c: Scenario, n: int = 1000, seed: int = 0, draws: int = 300) -> Decisions:
    """The intervals and verdicts of ``n`` studies, by the functions that answer a real one."""
    rng, owner, parts = np.random.default_rng(seed), c.owners(), []
    for begin in range(0, n, AT_ONCE):
        d, truth = studies(c, min(AT_ONCE, n - begin), rng)
        y = inference.by_subject(d, owner)
        se = inference.bootstrap(y, draws, seed + begin).std(0) if draws else None
        parts.append((inference.interval(inference.spread(y), se), truth))
    fields = [
        np.concatenate([np.atleast_1d(getattr(i, name)) for i, _ in parts])
        for name in inference.Interval.__annotations__
    ]
    interval = inference.Interval(*fields)
    verdicts = [
        judge(Difference(c.seeds, float(m), low=float(low), high=float(high)), MARGIN)
        for m, low, high in zip(interval.mean, interval.low, interval.high, strict=True)
    ]
    return Decisions(interval, np.concatenate([t for _, t in parts]), verdicts)
