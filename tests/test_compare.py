from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from marginlab.compare import Design, Difference, Resolution, answers, judge, optimism, resolution, seeds_needed
from marginlab.reach import Parts
from marginlab.results import Results
from marginlab.study import Comparison, Confirmation, Search
from tests.report.synthetic import Synthetic, study


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return Results.open(Synthetic(tmp_path_factory.mktemp("whole")).whole())


def test_the_difference_by_hand():
    """Differences 0.010, 0.015, 0.020: mean 0.015, sd 0.005, se 0.005 / sqrt(3); t[0.975, 2] = 4.302653."""
    d = Difference.of([0.010, 0.015, 0.020])
    assert (d.n, d.mean, d.sd) == (3, pytest.approx(0.015), pytest.approx(0.005))
    assert d.se == pytest.approx(0.00288675, abs=1e-8)
    assert (d.low, d.high) == (pytest.approx(0.0025793, abs=1e-7), pytest.approx(0.0274207, abs=1e-7))


@pytest.mark.parametrize("n", [2, 5, 40])
def test_the_interval_is_that_of_scipy_and_agrees_with_the_paired_test(n):
    rng = np.random.default_rng(n)
    first, second = rng.normal(0.5, 0.1, n), rng.normal(0.45, 0.1, n)
    d = Difference.of(list(first - second))
    expected = stats.t.interval(0.95, n - 1, loc=np.mean(first - second), scale=stats.sem(first - second))
    assert (d.low, d.high) == pytest.approx(expected)
    test = stats.ttest_rel(first, second)
    assert test.confidence_interval() == pytest.approx((d.low, d.high))
    assert (d.low > 0 or d.high < 0) == (test.pvalue < 0.05)


def test_one_pair_has_a_mean_and_no_interval_and_none_has_nothing():
    assert Difference.of([0.3]) == Difference(1, 0.3)
    assert Difference.of([]) == Difference(0)
    assert judge(Difference.of([0.3]), 0.01) == judge(Difference.of([]), 0.01) == "undecided"


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.002, 0.03, "better"),
        (0.02, 0.03, "better"),
        (-0.03, -0.002, "worse"),
        (-0.01, 0.01, "matches"),
        (0.002, 0.009, "better"),
        (-0.009, -0.002, "matches"),  # surely below zero, but surely by less than the margin
        (-0.002, 0.03, "matches"),
        (-0.03, 0.03, "undecided"),
        (-0.011, 0.0, "undecided"),
        (0.0, 0.03, "matches"),
    ],
)
def test_the_verdict_follows_from_the_interval_and_the_margin(low, high, verdict):
    assert judge(Difference(5, (low + high) / 2, 0.01, 0.005, low, high), 0.01) == verdict


def test_equal_arms_match():
    assert judge(Difference.of([0.0, 0.0, 0.0]), 0.0) == "matches"


def test_the_declared_contrast_is_answered_for_each_dataset(whole):
    oai, knees = answers(whole)
    assert (oai.dataset, oai.first, oai.second, oai.metric, oai.horizon) == (
        "oai",
        "automargin",
        "fixed",
        "test/map",
        None,
    )
    assert (oai.verdict, oai.needed, oai.difference.mean) == ("better", None, pytest.approx(0.015))
    assert (knees.verdict, knees.difference.mean, knees.difference.sd) == (
        "undecided",
        pytest.approx(0.01),
        pytest.approx(0.02),
    )
    assert knees.needed == 10  # (2.262 + 0.883) 0.02 / sqrt(10) = 0.0199 <= 0.01 + 0.01, and nine would not do


def test_a_horizon_can_be_the_endpoint(tmp_path):
    """At every horizon all arms are lower by the same: the differences stay."""
    declared = Comparison(primary="test/map_24m", contrast=("triplet", "fixed"), margin=0.01)
    oai, _ = answers(Results.open(Synthetic(tmp_path, study(comparison=declared)).whole()))
    assert (oai.metric, oai.horizon, oai.verdict) == ("test/map", 24, "worse")
    assert oai.difference.mean == pytest.approx(-0.045)


def test_one_seed_is_undecided(tmp_path):
    oai, _ = answers(Results.open(Synthetic(tmp_path, study(seeds=1)).whole()))
    assert (oai.verdict, oai.needed, oai.difference) == ("undecided", None, Difference(1, pytest.approx(0.01)))


def test_without_a_declared_contrast_there_is_no_answer(tmp_path):
    assert answers(Results.open(Synthetic(tmp_path, study(comparison=Comparison())).whole())) == []


@pytest.mark.parametrize(("mean", "sd", "margin"), [(0.02, 0.03, 0.0), (0.001, 0.02, 0.01), (-0.03, 0.05, 0.01)])
def test_the_number_of_seeds_decides_with_four_in_five_chances(mean, sd, margin):
    n = seeds_needed(Difference(5, mean, sd, sd / 5**0.5, -1.0, 1.0), margin)
    distance = max(mean + margin, -mean)
    power = stats.nct.sf(stats.t.ppf(0.975, n - 1), n - 1, distance / (sd / n**0.5))
    assert 0.78 < power < 0.84
    fewer = stats.nct.sf(stats.t.ppf(0.975, n - 2), n - 2, distance / (sd / (n - 1) ** 0.5))
    assert fewer < power


def test_no_number_of_seeds_is_named_where_none_follows():
    assert seeds_needed(Difference(1, 0.01), 0.01) is None
    assert seeds_needed(Difference(5, 0.0, 0.02, 0.01, -0.02, 0.02), 0.0) is None
    assert seeds_needed(Difference(5, 1e-6, 1.0, 0.5, -1.0, 1.0), 0.0) is None


@pytest.mark.parametrize(
    ("seeds", "p", "shown", "found"),
    [
        (2, 0.5, 12.706205 / 2**0.5, (12.706205 + 1.376382) / 2**0.5),  # t[0.975, 1] and t[0.8, 1], from tables
        (3, 0.25, 4.302653 / 3**0.5, (4.302653 + 1.060660) / 3**0.5),
        (5, 0.0625, 2.776445 / 5**0.5, (2.776445 + 0.940965) / 5**0.5),
        (10, 2 / 1024, 2.262157 / 10**0.5, (2.262157 + 0.883404) / 10**0.5),
    ],
)
def test_what_a_number_of_seeds_can_show_by_hand(seeds, p, shown, found):
    r = resolution(seeds)
    assert (r.n, r.p, r.shown, r.found) == (seeds, p, pytest.approx(shown, rel=1e-6), pytest.approx(found, rel=1e-6))
    assert r.scaled(0.02) == (pytest.approx(0.02 * shown, rel=1e-6), pytest.approx(0.02 * found, rel=1e-6))


def test_one_seed_can_show_nothing():
    assert resolution(1) == Resolution(1) and resolution(1).scaled(0.02) is None
    assert resolution(10_000).p == 0.0  # too small for a float


@pytest.mark.parametrize("n", [2, 3, 6])
def test_the_least_p_is_that_of_all_sign_flips(n):
    """Differences of one sign, all flips tried: only the observed one and its mirror image are as far from zero."""
    differences = np.arange(1, n + 1) / 100
    flips = np.array(np.meshgrid(*[[-1, 1]] * n)).reshape(n, -1).T
    assert np.mean(np.abs(flips @ differences) >= differences.sum() - 1e-12) == resolution(n).p


@pytest.mark.parametrize("n", [2, 3, 8])
def test_the_least_difference_shown_is_where_the_interval_touches_zero(n):
    rng = np.random.default_rng(n)
    noise = rng.normal(size=n)
    noise = (noise - noise.mean()) / noise.std(ddof=1) * 0.02
    least = resolution(n).scaled(0.02)[0]
    assert Difference.of(list(noise + least * 1.001)).low > 0 > Difference.of(list(noise + least * 0.999)).low


@pytest.mark.parametrize("n", [4, 10, 30])
def test_what_is_found_with_four_in_five_chances_agrees_with_the_seeds_needed(n):
    sd = 0.02
    distance = resolution(n).scaled(sd)[1]
    assert seeds_needed(Difference(5, distance * 1.0001, sd), 0.0) == n
    assert seeds_needed(Difference(5, distance * 0.9999, sd), 0.0) == n + 1


def test_what_seeds_cannot_shrink_can_leave_it_undecided_for_ever():
    """Subjects alone: standard error 0.01, so 0.02 is out of reach whatever the seeds; with 0.002 left to them, four do."""
    subjects = Parts(0.0, 1e-6, 1e-4, (1, 5, 200))
    wide = Difference(5, 0.01, 0.002, 0.01, -0.01, 0.03, parts=subjects)
    assert seeds_needed(wide, 0.01) is None
    assert seeds_needed(replace(wide, mean=0.03), 0.01) == 2
    few = Parts(0.0, 5e-5, 1e-5, (1, 5, 200))
    n = seeds_needed(replace(wide, parts=few), 0.01)
    se, df = few.se(n), few.df(n)
    assert se == pytest.approx((5e-5 * 5 / n + 1e-5) ** 0.5)
    assert (stats.t.ppf(0.975, df) + stats.t.ppf(0.8, df)) * se <= 0.02 < few.reach(n - 1)[1]


def test_degrees_of_freedom_of_one_part_are_its_own_and_of_none_those_of_the_seeds():
    assert Parts(0.0, 1e-4, 0.0, (1, 5, 1)).df(8) == pytest.approx(7)
    assert Parts(0.0, 0.0, 1e-4, (1, 5, 40)).df(8) == pytest.approx(39)
    assert Parts(1e-4, 0.0, 0.0, (3, 5, 1)).df(8) == pytest.approx(2)
    assert Parts(0.0, 0.0, 0.0, (1, 5, 40)).df(8) == 7
    assert 7 < Parts(0.0, 1e-4, 1e-4, (1, 5, 40)).df(5) < 39


@pytest.mark.parametrize(
    ("seeds", "datasets", "confirmatory", "least"),
    [(5, 1, False, 6), (6, 1, True, 6), (6, 2, False, 7), (7, 2, True, 7), (20, 0, False, 6)],
)
def test_a_design_is_confirmatory_where_its_signs_alone_could_reach_p(seeds, datasets, confirmatory, least):
    """2 / 2^6 = 0.031 is below 0.05, 2 / 2^7 = 0.016 below 0.05 / 2."""
    design = Design(seeds, datasets)
    assert (design.confirmatory, design.least, design.why() == "") == (confirmatory, least, confirmatory)


def test_holm_over_the_datasets_and_whether_the_verdict_stands(whole):
    oai, knees = answers(whole)
    assert oai.difference.p == pytest.approx(2 * stats.t.sf(0.015 / (0.005 / 3**0.5), 2))  # 0.035
    assert oai.holm == pytest.approx(2 * oai.difference.p) and knees.holm == knees.difference.p
    assert oai.verdict == "better" and not oai.stands and not knees.stands
    assert replace(oai, holm=0.04).stands
    assert oai.p_margin == pytest.approx(stats.t.sf(0.025 / (0.005 / 3**0.5), 2))
    matching = replace(oai, verdict="matches", holm=0.5, holm_margin=0.02)
    assert matching.stands and not replace(matching, holm_margin=0.03).stands
    assert oai.check.mean == pytest.approx(oai.difference.mean)
    assert oai.check.se == pytest.approx(((1 / 3 + 1 / 4) * 0.005**2) ** 0.5)


def test_an_undecided_answer_needs_more_seeds_than_it_had():
    rng = np.random.default_rng(0)
    for _ in range(50):
        d = Difference.of(list(rng.normal(0.01, 0.02, 4)))
        if judge(d, 0.01) == "undecided":
            assert seeds_needed(d, 0.01) > d.n


def test_selection_optimism_by_hand(whole):
    """Searches found 0.51; confirmation ends at 0.48, 0.49, 0.50."""
    frame = optimism(whole)
    assert len(frame) == 6
    for row in frame.iter_rows(named=True):
        assert (row["search"], row["n"]) == (0.51, 3)
        assert (row["confirmed"], row["optimism"]) == (pytest.approx(0.49), pytest.approx(0.02))


def test_optimism_compares_the_same_folds_and_the_same_epoch(tmp_path):
    longer = study(search=Search(epochs_budget=12, max_epochs=2), confirmation=Confirmation(seeds=3, folds=1, epochs=4))
    frame = optimism(Results.open(Synthetic(tmp_path / "longer", longer).whole()))
    assert frame["confirmed"][0] == pytest.approx((0.29 + 0.295 + 0.30) / 3)  # halfway up the line from 0.1
    two_folds = study(search=Search(epochs_budget=12, max_epochs=4, folds=(0, 1)))
    frame = optimism(Results.open(Synthetic(tmp_path / "folds", two_folds).whole()))
    assert frame["confirmed"].null_count() == len(frame)  # fold 1 is not confirmed
