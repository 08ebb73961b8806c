"""What is trained on fresh seeds, from searches whose trials are written by hand."""

from __future__ import annotations

import dataclasses
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from marginlab.counting import expected_incumbents, most_incumbents
from marginlab.declaration import declare
from marginlab.files import read_json
from marginlab.fresh import Fresh, covers
from marginlab.plan import Plan, SearchKey
from marginlab.results import Results
from marginlab.search import incumbents, summarize
from marginlab.study import Comparison, Confirmation, Search
from marginlab.values import InputError, canonical
from tests.report.synthetic import TEST, Synthetic, edit_json, study
from tests.test_study import AUTO, FIXED, a_plan

BEGAN = datetime(2026, 1, 1)
DEFAULT = {"margin.epsilon": 0.25}
RULES = Search(epochs_budget=20, max_epochs=4)


def trial(
    number: int, value: float, ended: float, epsilon: float = 0.0, state: TrialState = TrialState.COMPLETE
) -> FrozenTrial:
    made = create_trial(
        params={"margin.epsilon": epsilon or 0.1 * number},
        distributions={"margin.epsilon": FloatDistribution(0.0, 9.0)},
        value=value,
        intermediate_values={4: value},
        state=state,
    )
    made.number, made.datetime_complete = number, BEGAN + timedelta(seconds=ended)
    return made


def plan_of(**confirmation: Any) -> Plan:
    one = dataclasses.replace(FIXED, space={"margin.epsilon": FIXED.space["margin.epsilon"]})
    rules = Confirmation(seeds=2, folds=1, **confirmation)
    return a_plan(arms=[one], search=RULES, confirmation=rules, comparison=Comparison())


def found(plan: Plan, *trials: FrozenTrial) -> dict[str, Any]:
    return {str(key): summarize(list(trials), RULES) for key in plan.searches()}


def test_incumbents_lead_in_the_order_in_which_trials_ended() -> None:
    late = [trial(0, 0.5, 9), trial(1, 0.3, 1), trial(2, 0.4, 2), trial(3, 0.6, 3, state=TrialState.PRUNED)]
    assert [t.number for t in incumbents([*late, trial(4, 0.4, 4), trial(5, 0.45, 5)])] == [1, 2, 5, 0]
    # Of equals the earlier number wins the search, also if it ended later: the last one leading is the winner.
    assert [t.number for t in incumbents([trial(0, 0.5, 2), trial(1, 0.5, 1)])] == [1, 0]
    assert incumbents([]) == []


def test_every_configuration_is_trained_on_fresh_seeds_once() -> None:
    plan = plan_of(defaults=True, incumbents=3)
    trials = [
        trial(0, 0.1, 1, 0.25),
        trial(1, 0.2, 2, 0.3),
        trial(2, 0.3, 3, 0.4),
        trial(3, 0.4, 4, 0.3),
        trial(4, 0.5, 5, 0.5),
    ]
    fresh = Fresh.of(plan, found(plan, *trials))
    key = plan.searches()[0]
    assert fresh.again(key) == [
        (1, {"margin.epsilon": 0.3}),
        (2, {"margin.epsilon": 0.4}),
    ]  # neither default nor winner
    tasks = [t for t in fresh.tasks() if t.run.dataset == key.dataset]
    assert [t.labels["kind"] for t in tasks] == ["confirmation"] * 2 + ["default"] * 2 + ["incumbent"] * 6
    assert len({t.run.id for t in tasks}) == len({t.folder for t in tasks}) == 10
    assert fresh.counts() == {"confirmation": 4, "default": 4, "incumbent": 12}  # of two datasets
    assert all(fresh.wants(t.labels) for t in tasks)
    default, incumbent = tasks[2], tasks[4]
    assert default.run.seed == tasks[0].run.seed and default.labels["params"] == DEFAULT  # paired with the winner
    assert incumbent.labels["trial"] == 1 and incumbent.folder.endswith(f"incumbent-0001-00-f0-{incumbent.run.id[:8]}")
    seeds = {t.run.seed for t in tasks[4:]}
    assert len(seeds) == 3 and min(seeds) >= 1 << 32  # no search and no confirmation has such a seed


def test_a_default_that_wins_is_not_trained_twice() -> None:
    plan = plan_of(defaults=True, incumbents=1)
    fresh = Fresh.of(plan, found(plan, trial(0, 0.5, 1, 0.25), trial(1, 0.4, 2)))
    assert {t.labels["kind"] for t in fresh.tasks()} == {"confirmation"} and fresh.counts()["default"] == 0
    beaten = Fresh.of(plan, found(plan, trial(0, 0.5, 1, 0.25), trial(1, 0.6, 2)))
    assert [t.labels["kind"] for t in beaten.tasks()].count("default") == 4


def test_where_confirmation_is_another_measure_winner_and_default_are_incumbents_too() -> None:
    trials = [trial(0, 0.1, 1, 0.25), trial(1, 0.2, 2, 0.3)]
    for further in ({"epochs": 3}, {}):
        plan = plan_of(defaults=True, incumbents=1, **further)
        again = Fresh.of(plan, found(plan, *trials)).again(plan.searches()[0])
        assert (covers(plan), [number for number, _ in again]) == (not further, [0, 1] if further else [])


def test_a_study_of_before_has_neither_and_may_get_both(tmp_path: Path) -> None:
    before, after = plan_of(), plan_of(defaults=True, incumbents=2)
    assert "incumbents" not in canonical(before.study) and "defaults" not in canonical(before.study)
    trials = found(before, trial(0, 0.1, 1, 0.25), trial(1, 0.2, 2, 0.3), trial(2, 0.3, 3, 0.4))
    old, new = ([t.run.id for t in Fresh.of(plan, trials).tasks()] for plan in (before, after))
    assert old == new[: len(old)] and len(new) == len(old) + 4 + 4
    declare(tmp_path, before)
    declare(tmp_path, after)
    with pytest.raises(InputError, match="incumbents must be at least 0"):
        Confirmation(incumbents=-1)


def test_how_many_incumbents_there_will_be_by_hand() -> None:
    """Five trials of 4 epochs, none pruned: 1 + 1/2 + ... + 1/5 lead for a while, and the winner is confirmed."""
    rules = dataclasses.replace(RULES, pruner_startup_trials=5)
    again = Confirmation(seeds=1, folds=1, incumbents=2)
    plan = a_plan(arms=[AUTO], search=rules, confirmation=again, comparison=Comparison())
    leaders = 1 + 1 / 2 + 1 / 3 + 1 / 4 + 1 / 5
    assert most_incumbents(plan) == 2 * 4 and expected_incumbents(plan) == pytest.approx(2 * (leaders - 1))
    assert expected_incumbents(plan, complete=3, epochs=8) == pytest.approx(2 * (1 / 4 + 1 / 5))
    assert most_incumbents(plan, complete=3, epochs=8) == 8 and expected_incumbents(plan, complete=5, epochs=0) == 0
    with_default = dataclasses.replace(plan.study.confirmation, defaults=True)
    plan = dataclasses.replace(plan, study=dataclasses.replace(plan.study, confirmation=with_default))
    assert expected_incumbents(plan) == pytest.approx(2 * (leaders - 2))


def test_what_is_missing_of_them_is_said_and_a_default_that_won_has_the_winners_figures(tmp_path: Path) -> None:
    made = Synthetic(tmp_path, study(seeds=2, confirmation=Confirmation(seeds=2, folds=1, defaults=True, incumbents=1)))
    made.whole()
    won = SearchKey("oai", "fixed", 0)
    searches = read_json(tmp_path / "summary.json")["searches"]
    edit_json(tmp_path / "summary.json", searches={**searches, str(won): {**searches[str(won)], "params": DEFAULT}})
    for task in made.plan.confirmations(won, DEFAULT):
        made.confirmation(task)
    results = Results.open(tmp_path)
    assert results.missing() == ["Of the runs of published defaults, 10 have not ended."]  # incumbents are not recorded
    assert set(results.test("default")["arm"]) == {"fixed"}
    for task in results.fresh.tasks():
        if task.labels["kind"] == "default":
            made.run(task, 0.45, 4, "complete", {"test/map": 0.7})
    results = Results.open(tmp_path)
    assert results.missing() == [] and results.runs().filter(kind="default")["current"].all()
    maps = results.test("default").filter(pl.col("metric") == "test/map", pl.col("horizon").is_null())
    own = maps.filter(pl.col("dataset") == "oai", pl.col("arm") == "fixed")
    assert own["value"].to_list() == TEST["oai", "fixed"][:2] and maps.height == 12
    assert len(results.test().filter(metric="test/map").filter(pl.col("horizon").is_null())) == 12
