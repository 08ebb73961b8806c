"""Intervals of a paired difference that was measured on few seeds, fewer searches and many subjects. Arrays in, arrays out.

Differences are crossed: every search replicate was trained on every seed, every model answered the queries of every subject.
Shapes: R replicates, S seeds, Q queries, I subjects; ``[...]`` any number of studies at once.

The difference of one cell is mu + a_r + b_s + c_i + the interactions of these effects (random, mean 0). With
V_A = mean(a^2) / (R - 1), V_AB = mean(ab^2) / ((R - 1) (S - 1)) and so on, each an expected variance of the grand mean,

    Var(mean) = training + subjects
    training  = V_A + V_B - V_AB                    with one replicate V_B: what the searches add cannot be seen
    subjects  = V_C - V_AC - V_BC + V_ABC           not below 0

(Searle, Casella and McCulloch 1992, Variance Components, ch. 4; the signs take interactions into account once, which a plain
two-way bootstrap counts three times: Owen 2007, Annals of Applied Statistics 1:386.) Few replicates and seeds can make
``training`` much too small by chance, even negative: it is floored at the pooled mean square of a, b and ab, which is what it
would be if single trainings varied and nothing else did. With two replicates or two seeds the pool is too small a floor; the
larger of V_A and V_B is taken. The standard error is that of a bootstrap (:func:`bootstrap`), the quantile Student's, because
percentiles of five seeds would be far too close together. Its degrees of freedom are Satterthwaite's (1946, Biometrics Bulletin
2:110), V^2 / sum_k(V_k^2 / df_k), with every V_k taken (1 + 2 / df_k) larger: where a part of few degrees of freedom turns out
small by chance, the plain formula trusts the rest too much (errors of 7.5% instead of 5% with three replicates). These two rules,
the floor and the larger parts, are ours. How often the interval errs with them is measured in docs/calibration.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

LEVEL = 0.95
DRAWS = 2_000
OVERLAP = 0.25  # of folds that are a fifth: images tested on per image trained on
_AT_ONCE = 2**22  # units drawn at a time

Array = np.ndarray


@dataclass(frozen=True)
class Spread:
    """A mean difference and the variance of it, in parts; arrays [...]. NaN where there is one seed."""

    mean: Array
    searches: Array  # part of the variance that more seeds leave as it is; 0 with one replicate, where it is unknown
    seeds: Array  # part that is inversely proportional to the number of seeds
    subjects: Array  # part that only further subjects would shrink
    noise: Array  # of the seeds' part, what differs from search to search (V_AB)
    df: Array
    units: tuple[int, int, int]  # R, S, I

    @property
    def variance(self) -> Array:
        return np.asarray(self.searches + self.seeds + self.subjects)


@dataclass(frozen=True)
class Interval:
    """Arrays [...]. ``p``: two-sided, of no difference; below 0.05 exactly where the 95% interval leaves out zero."""

    mean: Array
    se: Array
    df: Array
    low: Array
    high: Array
    p: Array


def by_subject(d: Array, subject: Array) -> Array:
    """Differences per query [..., R, S, Q] as one value per subject [..., R, S, I], in ascending order of the subject.

    The mean over subjects is that over queries: a subject with many queries keeps its weight. The value of subject i is
    theta + I / Q (sum of i's queries - n_i theta), theta being the mean of its cell: the mean's linearisation, as for any
    ratio of sums over clusters (Cochran 1977, Sampling Techniques, 6.4).
    """
    order = np.argsort(subject, kind="stable")
    _, start, count = np.unique(subject[order], return_index=True, return_counts=True)
    sums = np.add.reduceat(d[..., order], start, axis=-1)
    theta = d.mean(-1, keepdims=True)
    return np.asarray(theta + len(count) / d.shape[-1] * (sums - count * theta))


def spread(y: Array) -> Spread:
    """The mean of ``y`` [..., R, S, I] and the parts of its variance; with I = 1 the subjects are taken as given."""
    v = _Crossed(y)
    training, subjects = v.training(), v.subjects()
    searches = np.clip(v.part["a"] - v.part["ab"], 0.0, training.variance)
    seeds, bend = training.variance - searches, training.bend + subjects.bend
    with np.errstate(divide="ignore", invalid="ignore"):
        df = np.where(bend > 0, (training.leaned + subjects.leaned) ** 2 / bend, v.units[1] - 1)
    lone = np.where(v.units[1] > 1, 0.0, np.nan)  # one seed
    parts = (searches + lone, seeds + lone, subjects.variance + lone, v.part["ab"] + lone)
    return Spread(v.mean, *parts, np.maximum(df, 1.0) + lone, v.units)


def leaning(df: Array | float) -> Array:
    """By how much a part of so many degrees of freedom counts as larger where degrees of freedom are combined."""
    return np.asarray(1 + 2 / np.maximum(df, 1))


def interval(s: Spread, se: Array | None = None) -> Interval:
    """The 95% t interval. Without ``se``, that of the bootstrap's limit of infinitely many draws."""
    se = np.sqrt(s.variance) if se is None else se
    half = stats.t.ppf((1 + LEVEL) / 2, s.df) * se
    return Interval(s.mean, se, s.df, s.mean - half, s.mean + half, 2 * above(np.abs(s.mean), se, s.df))


def above(distance: Array, se: Array, df: Array) -> Array:
    """P(T >= distance / se) of Student's T: the one-sided p. Where nothing varies, 0.5 at a distance of 0 and else 0 or 1."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(stats.t.sf(np.where((se == 0) & (distance == 0), 0.0, distance / se), df))


def bootstrap(y: Array, draws: int = DRAWS, seed: int = 0) -> Array:
    """Means of ``y`` [..., R, S, I] when subjects, seeds and replicates are drawn anew: [draws, ...]. Both arms get one draw.

    n - 1 of n units are drawn with replacement, which makes the variance of a draw that of the mean without bias (Rao and Wu
    1988, JASA 83:231). The effects of replicates, seeds and subjects are drawn each on their own and scaled to the parts of
    the variance (as Carpenter, Goldstein and Rasbash 2003, Applied Statistics 52:431, do with residuals), so that
    interactions count once.
    """
    rng = np.random.default_rng(seed)
    v = _Crossed(y)
    inflate = _root(v.training().variance, v.part["a"] + v.part["b"])
    out = _drawn(v.effect["a"], draws, rng) + _drawn(v.effect["b"], draws, rng)
    out *= inflate
    out += _root(v.subjects().variance, v.part["c"]) * _drawn(v.effect["c"], draws, rng)
    return np.asarray(v.mean + out)


def _root(wanted: Array, there: Array) -> Array:
    return np.asarray(np.sqrt(np.divide(wanted, there, out=np.zeros_like(there), where=there > 0)))


def _drawn(effect: Array, draws: int, rng: np.random.Generator) -> Array:
    """Means of n - 1 of the effects [..., n], drawn with replacement: [draws, ...]. All studies get the same draws."""
    n = effect.shape[-1]
    flat = effect.reshape(-1, n)
    out = np.zeros((draws, len(flat)))
    step = max(1, _AT_ONCE // n)
    for begin in range(0, draws if n > 1 else 0, step):
        chosen = rng.integers(0, n, (min(step, draws - begin), n - 1), dtype=np.int32)
        for row, drawn in enumerate(chosen, begin):
            # What was drawn is summed for one study, counted for many.
            out[row] = flat[:, drawn].sum(-1) if len(flat) == 1 else flat @ np.bincount(drawn, minlength=n)
    out /= max(n - 1, 1)
    return out.reshape(draws, *effect.shape[:-1])


@dataclass(frozen=True)
class Block:
    """Parts of a variance: their sum, and numerator (its root) and denominator of the degrees of freedom."""

    variance: Array
    leaned: Array
    bend: Array


class _Crossed:
    """Effects and mean squares of ``y`` [..., R, S, I]: a replicates, b seeds, c subjects."""

    def __init__(self, y: Array) -> None:
        r, s, i = self.units = (y.shape[-3], y.shape[-2], y.shape[-1])
        self.mean = y.mean((-3, -2, -1))
        y = y - self.mean[..., None, None, None]
        a, b, c = y.mean((-2, -1)), y.mean((-3, -1)), y.mean((-3, -2))
        self.effect = {"a": a, "b": b, "c": c}
        square = {
            **{name: (e**2).mean(-1) for name, e in self.effect.items()},
            "ab": ((y.mean(-1) - a[..., None] - b[..., None, :]) ** 2).mean((-2, -1)),
            "ac": ((y.mean(-2) - a[..., None] - c[..., None, :]) ** 2).mean((-2, -1)),
            "bc": ((y.mean(-3) - b[..., None] - c[..., None, :]) ** 2).mean((-2, -1)),
        }
        square["abc"] = np.maximum((y**2).mean((-3, -2, -1)) - sum(square.values()), 0.0)
        units = {"a": r - 1, "b": s - 1, "c": i - 1}
        self.df = {name: int(np.prod([units[letter] for letter in name])) for name in square}
        self.part = {n: x / self.df[n] if self.df[n] else np.zeros_like(x) for n, x in square.items()}

    def training(self) -> Block:
        return training(self.part, self.units)

    def subjects(self) -> Block:
        whole = _block(self.part, self.df, {"c": 1, "ac": -1, "bc": -1, "abc": 1})
        some = whole.variance > 0
        return Block(*(np.where(some, x, 0.0) for x in (whole.variance, whole.leaned, whole.bend)))


def training(part: dict[str, Array], units: tuple[int, int, int]) -> Block:
    """What searches and seeds make, of V_A, V_B and V_AB ("a", "b", "ab")."""
    r, s, _ = units
    n = {"a": r - 1, "b": s - 1, "ab": (r - 1) * (s - 1)}
    whole = _block(part, n, {"a": 1, "b": 1, "ab": -1})
    if min(r, s) == 1:
        return whole
    a, b = part["a"], part["b"]
    if min(r, s) > 2:
        df = np.full_like(a, sum(n.values()))
        floor = (n["a"] * a + n["b"] * b + n["ab"] * part["ab"]) / df
    else:
        floor, df = np.maximum(a, b), np.where(a > b, n["a"], n["b"])
    low, leaned = whole.variance < floor, leaning(df) * floor
    return Block(
        np.where(low, floor, whole.variance),
        np.where(low, leaned, whole.leaned),
        np.where(low, leaned**2 / df, whole.bend),
    )


def _block(part: dict[str, Array], df: dict[str, int], signs: dict[str, int]) -> Block:
    leaned = {name: leaning(df[name]) * part[name] for name in signs}
    return Block(
        np.asarray(sum(sign * part[name] for name, sign in signs.items())),
        np.asarray(sum(sign * leaned[name] for name, sign in signs.items())),
        np.asarray(sum(x**2 / max(df[name], 1) for name, x in leaned.items())),
    )


def corrected(differences: Sequence[float] | Array, overlap: float = OVERLAP) -> Interval:
    """Nadeau and Bengio's corrected resampled t-test (2003, Machine Learning 52:239) of single models' differences [J].

    Models of several folds share most of their training images, so they are not J independent ones: the variance of their
    mean is taken as (1 / J + overlap) times theirs, overlap being images tested on per image trained on. NaN below two.
    """
    d = np.asarray(differences, dtype=float)
    j = len(d)
    if j < 2:
        none = np.array(np.nan)
        return Interval(d.mean() if j else none, none, none, none, none, none)
    se = np.sqrt((1 / j + overlap) * d.var(ddof=1))
    zero = np.zeros(())
    # All of the variance in one part: the interval's own arithmetic does the rest.
    return interval(Spread(d.mean(), zero, se**2, zero, zero, np.array(j - 1.0), (1, j, 1)))


def holm(p: Sequence[float]) -> list[float]:
    """Holm's adjusted p (1979, Scandinavian Journal of Statistics 6:65), in the order given."""
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate((len(p) - np.arange(len(p))) * np.asarray(p, dtype=float)[order])
    out = np.empty(len(p))
    out[order] = np.minimum(stepped, 1.0)
    return [float(x) for x in out]
