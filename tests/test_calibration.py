"""How often the comparison errs, by 1,500 simulated studies each: the whole chain from noisy trials to the verdict.

Nominal rates: an interval leaves out the truth in 5% of studies (two-sided), so an arm that is no different is called better in
2.5% and worse in 2.5%; one that is worse by exactly the margin is said to match (or be better) in 2.5% (one-sided). 3.7% to 6.3%
is what 1,000 studies show of a true 5% in 95 of 100 repetitions; 1.5% to 3.5% is that of 2.5%.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from marginlab import inference
from marginlab.reach import Parts, needed
from tests.simulated import MARGIN, Scenario, decide, studies

STUDIES = 1500
QUIET = Scenario(
    replicates=1, config=0.0, fold=0.0, taste=0.0, subject=0.02, query=0.05
)  # seeds make most of its variance


@pytest.mark.parametrize("replicates", [3, 5])
def test_identical_arms_are_told_apart_in_a_twentieth_of_studies(replicates):
    """The searches' luck included: winners differ, and the arms do not."""
    found = decide(Scenario(replicates=replicates), STUDIES, seed=1)
    assert 0.037 <= found.missed() <= 0.063
    assert found.said("better") <= 0.035


def test_with_one_search_each_the_interval_holds_for_what_they_found():
    found = decide(Scenario(replicates=1), STUDIES, seed=2)
    assert found.truth.std() > 0.005  # the winners do differ
    assert 0.037 <= found.missed() <= 0.063


def test_at_the_boundary_of_equivalence_a_worse_arm_is_said_to_match_in_a_fortieth_of_studies():
    found = decide(Scenario(difference=-MARGIN), STUDIES, seed=3)
    assert 0.037 <= found.missed() <= 0.063
    assert 0.015 <= found.said("better", "matches") <= 0.035


ALIKE = replace(QUIET, replicates=3, config=0.002, fold=0.001, taste=0.01)


@pytest.mark.parametrize(("c", "difference"), [(QUIET, 0.0), (ALIKE, 0.006)])
def test_the_seeds_that_are_named_decide_four_studies_of_five(c, difference):
    """The parts of the variance are known here (the mean of many studies'); the number that follows from them is tried."""
    d, _ = studies(c, 500, np.random.default_rng(4))
    s = inference.spread(inference.by_subject(d, c.owners()))
    parts = Parts(
        float(s.searches.mean()), float(s.seeds.mean()), float(s.subjects.mean()), s.units, float(s.noise.mean())
    )
    n = needed(parts, difference + MARGIN)
    assert n is not None and 3 <= n <= 12
    found = decide(Scenario(**{**vars(c), "seeds": n, "difference": difference}), seed=5)
    assert 0.77 <= found.said("better", "matches") <= 0.90
    fewer = decide(Scenario(**{**vars(c), "seeds": n - 2, "difference": difference}), seed=5)
    assert fewer.said("better", "matches") < 0.8
