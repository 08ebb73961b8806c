from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from marginlab.inference import above, bootstrap, by_subject, corrected, holm, interval, spread


def crossed(rng: np.random.Generator, r: int, s: int, i: int, **sd: float) -> np.ndarray:
    """[R, S, I] of effects of these sizes: a replicates, b seeds, c subjects, and their interactions."""
    shape = {"a": r, "b": s, "c": i}
    out = np.zeros((r, s, i))
    for name, size in sd.items():
        out = out + rng.normal(0, size, [shape[x] if x in name else 1 for x in "abc"])
    return out


def loops(y: np.ndarray) -> tuple[float, float]:
    """Training and subjects' part of the variance, from textbook mean squares (fixed loops, no vectorising)."""
    r, s, i = y.shape
    m = y.mean()
    a = [y[j].mean() - m for j in range(r)]
    b = [y[:, k].mean() - m for k in range(s)]
    c = [y[:, :, n].mean() - m for n in range(i)]
    ab = {(j, k): y[j, k].mean() - m - a[j] - b[k] for j in range(r) for k in range(s)}
    ac = {(j, n): y[j, :, n].mean() - m - a[j] - c[n] for j in range(r) for n in range(i)}
    bc = {(k, n): y[:, k, n].mean() - m - b[k] - c[n] for k in range(s) for n in range(i)}
    abc = [
        y[j, k, n] - m - a[j] - b[k] - c[n] - ab[j, k] - ac[j, n] - bc[k, n]
        for j, k, n in itertools.product(range(r), range(s), range(i))
    ]

    def part(effects, *sizes):
        df = np.prod([n - 1 for n in sizes])
        return sum(e**2 for e in effects) / np.prod(sizes) / df if df else 0.0

    va, vb, vc = part(a, r), part(b, s), part(c, i)
    vab, vac, vbc = part(ab.values(), r, s), part(ac.values(), r, i), part(bc.values(), s, i)
    return va + vb - vab, vc - vac - vbc + part(abc, r, s, i)


@pytest.mark.parametrize("shape", [(1, 4, 9), (3, 5, 8), (4, 3, 7)])
def test_the_parts_of_the_variance_are_those_of_mean_squares_by_hand(shape):
    rng = np.random.default_rng(sum(shape))
    y = crossed(rng, *shape, a=1.0, b=1.0, c=1.0, ab=0.2, abc=0.3)
    training, subjects = loops(y)
    s = spread(y)
    assert training > 0 and subjects > 0
    assert s.mean == pytest.approx(y.mean())
    assert s.searches + s.seeds == pytest.approx(training)
    assert s.subjects == pytest.approx(subjects)
    assert s.variance == pytest.approx(training + subjects)
    assert (s.searches == 0) == (shape[0] == 1)


def test_crossed_searches_and_seeds_have_the_standard_error_of_a_mixed_model():
    """statsmodels 0.15, MixedLM by REML with crossed random effects of rows and columns: mean 6.25, standard error 2.6783."""
    y = np.array([[3.0, 5.0, 9.0, 4.0], [8.0, 9.0, 15.0, 11.0], [1.0, 4.0, 6.0, 0.0]])
    s = spread(y[:, :, None])
    assert (s.mean, s.variance**0.5) == (6.25, pytest.approx(2.6783, rel=1e-4))


def test_many_studies_at_once_are_each_alone():
    rng = np.random.default_rng(0)
    y = rng.normal(size=(7, 2, 4, 6))
    together = spread(y)
    for k in range(7):
        alone = spread(y[k])
        for name in ("mean", "searches", "seeds", "subjects", "df"):
            assert getattr(together, name)[k] == pytest.approx(getattr(alone, name))
    assert bootstrap(y, 50, 3)[:, 4] == pytest.approx(bootstrap(np.stack([y[4], y[4]]), 50, 3)[:, 0])


def test_the_variance_is_unbiased_on_average():
    """Known components; the expected variance of the grand mean is their sum, each over its number of units."""
    rng = np.random.default_rng(1)
    r, s, i = 4, 5, 20
    sd = {"a": 0.8, "b": 0.9, "c": 2.0, "ab": 0.5, "bc": 1.0, "abc": 1.0}
    y = np.stack([crossed(rng, r, s, i, **sd) for _ in range(3000)])
    units = {"a": r, "b": s, "c": i}
    expected = sum(v**2 / np.prod([units[x] for x in name]) for name, v in sd.items())
    found = spread(y).variance.mean()
    assert found == pytest.approx(expected, rel=0.05)  # floors lift it a little
    assert y.mean((1, 2, 3)).var() == pytest.approx(expected, rel=0.08)


@pytest.mark.parametrize("n", [2, 5, 40])
def test_over_seeds_alone_it_is_the_paired_t_test_of_scipy(n):
    rng = np.random.default_rng(n)
    first, second = rng.normal(0.5, 0.1, n), rng.normal(0.45, 0.1, n)
    found = interval(spread((first - second).reshape(1, n, 1)))
    test = stats.ttest_rel(first, second)
    assert found.p == pytest.approx(test.pvalue) and found.df == n - 1
    assert (found.low, found.high) == pytest.approx(tuple(test.confidence_interval()))


def test_p_and_interval_say_the_same():
    y = np.random.default_rng(2).normal(0.12, 0.3, (400, 3, 5, 4))
    found = interval(spread(y))
    assert 0.05 < ((found.low > 0) | (found.high < 0)).mean() < 0.95
    assert np.array_equal((found.low > 0) | (found.high < 0), found.p < 0.05)


def test_where_nothing_varies():
    for value, p in ((0.0, 1.0), (0.2, 0.0), (-0.2, 0.0)):
        found = interval(spread(np.full((2, 3, 4), value)))
        assert (found.low, found.high, found.p) == (
            pytest.approx(value),
            pytest.approx(value),
            pytest.approx(p, abs=1e-9),
        )
    assert above(np.array(-1.0), np.array(0.0), np.array(3.0)) == 1.0


def test_one_seed_has_a_mean_and_no_interval():
    found = interval(spread(np.random.default_rng(0).normal(size=(1, 1, 30))))
    assert np.isfinite(found.mean) and np.isnan(found.low) and np.isnan(found.p)


@pytest.mark.parametrize("shape", [(1, 5, 60), (3, 4, 30), (5, 2, 1)])
def test_the_bootstrap_has_the_standard_error_of_its_limit(shape):
    rng = np.random.default_rng(sum(shape))
    y = crossed(rng, *shape, a=0.3, b=0.5, c=1.0, ab=0.4, abc=1.0)
    draws = bootstrap(y, 4000, seed=1)
    assert draws.shape == (4000,)
    assert draws.std() == pytest.approx(np.sqrt(spread(y).variance), rel=0.05)
    assert draws.mean() == pytest.approx(y.mean(), abs=4 * draws.std() / 4000**0.5)
    assert np.array_equal(draws, bootstrap(y, 4000, seed=1))
    assert not np.array_equal(draws, bootstrap(y, 4000, seed=2))


def test_the_bootstrap_of_seeds_alone_by_going_through_all_draws():
    """n - 1 of n seeds, all 3^2 ordered draws: their means have the variance s^2 / n of the mean."""
    d = np.array([0.01, 0.04, -0.02])
    means = [np.mean(pair) for pair in itertools.product(d, repeat=2)]
    assert np.std(means) == pytest.approx(d.std(ddof=1) / 3**0.5)
    draws = bootstrap(d.reshape(1, 3, 1), 3000, 0)
    assert set(np.round(draws, 12)) == set(np.round(means, 12))


def test_subjects_are_what_varies_not_their_queries():
    """Each query doubled: nothing is learnt, and the interval knows. With one query each, subjects are the queries."""
    rng = np.random.default_rng(3)
    d, owner = rng.normal(size=(2, 4, 30)), rng.permutation(30)
    once, twice = by_subject(d, owner), by_subject(np.repeat(d, 2, -1), np.repeat(owner, 2))
    assert once == pytest.approx(twice)
    assert once == pytest.approx(d[..., np.argsort(owner)])


def test_subjects_keep_the_weight_of_their_queries():
    d = np.array([[[1.0, 2.0, 3.0, 10.0]]])
    y = by_subject(d, np.array([7, 7, 7, 2]))
    assert y.mean() == pytest.approx(d.mean())  # 4
    assert y[0, 0] == pytest.approx([4 + 2 / 4 * (10 - 4), 4 + 2 / 4 * (6 - 3 * 4)])


def test_the_spread_over_subjects_is_that_of_a_ratio_of_sums():
    """Against the jackknife over subjects, whose variance the linearisation approximates."""
    rng = np.random.default_rng(4)
    count = rng.integers(1, 6, 400)
    owner = np.repeat(np.arange(400), count)
    d = rng.normal(size=len(owner)) + rng.normal(size=400)[owner]
    sums = np.bincount(owner, d)
    without = (d.sum() - sums) / (len(d) - count)
    jackknife = 399 / 400 * ((without - without.mean()) ** 2).sum()
    y = by_subject(d.reshape(1, 1, -1), owner)[0, 0]
    assert y.var(ddof=1) / 400 == pytest.approx(jackknife, rel=0.01)


def test_nadeau_and_bengio_by_hand():
    """Five differences of mean 0.02 and variance 0.00025: se^2 = (1/5 + 1/4) 0.00025, t[0.975, 4] = 2.776445."""
    d = [0.0, 0.01, 0.02, 0.03, 0.04]
    found = corrected(d)
    se = (0.45 * 0.00025) ** 0.5
    assert (found.mean, found.se, found.df) == (pytest.approx(0.02), pytest.approx(se), 4)
    assert found.high == pytest.approx(0.02 + 2.776445 * se)
    assert found.p == pytest.approx(2 * stats.t.sf(0.02 / se, 4))
    assert corrected(d, overlap=0.0).p == pytest.approx(stats.ttest_1samp(d, 0).pvalue)
    assert np.isnan(corrected([0.1]).low) and np.isnan(corrected([]).mean)


def test_holm_by_hand_and_by_its_definition():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.7]) == [0.7] and holm([]) == [] and holm([0.9, 0.8]) == [1.0, 1.0]
    rng = np.random.default_rng(5)
    for _ in range(20):  # rejected at 0.05 step by step, as Holm wrote it
        p = rng.uniform(0, 0.06, 5)
        rejected = set()
        for step, k in enumerate(np.argsort(p)):
            if p[k] > 0.05 / (5 - step):
                break
            rejected.add(int(k))
        assert {k for k, x in enumerate(holm(list(p))) if x <= 0.05} == rejected
