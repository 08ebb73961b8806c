"""What is done and what is left, of studies whose searches and runs are written by hand."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from marginlab.files import append_line, write_json
from marginlab.fresh import Fresh
from marginlab.plan import Plan
from marginlab.remaining import SearchLeft, remaining
from marginlab.search import Book
from marginlab.study import Confirmation
from tests.test_search import plan_of, work


def a_plan(budget: int = 8, **search: object) -> Plan:
    plan = plan_of(budget, **search)
    return dataclasses.replace(
        plan, study=dataclasses.replace(plan.study, confirmation=Confirmation(seeds=2, folds=1, epochs=6))
    )


def test_before_it_begins_all_is_left(tmp_path: Path) -> None:
    plan = a_plan()
    left = remaining(plan, tmp_path / "none")
    assert not left.begun and left.planned == 2 and left.epochs == 8 * len(plan.searches())
    assert set(left.searches.values()) == {SearchLeft(0, 8, 0)}
    assert set(left.runs.values()) == {(None, None)}
    assert not (tmp_path / "none").exists()


def test_a_search_that_was_cut_short_has_the_rest_of_its_budget_left(tmp_path: Path) -> None:
    plan = a_plan()
    book = Book(plan, f"sqlite:///{tmp_path / 'optuna.db'}")
    work(book, limit=6)
    progress, left = book.progress(), remaining(plan, tmp_path)
    assert left.begun and sum(s.spent for s in left.searches.values()) == 6
    for key, s in left.searches.items():
        assert (s.spent, s.left, s.trials) == (
            progress[str(key)]["epochs"],
            8 - progress[str(key)]["epochs"],
            progress[str(key)]["trials"],
        )


def test_a_search_that_cannot_pay_for_another_trial_is_over(tmp_path: Path) -> None:
    plan = a_plan()
    book = Book(plan, f"sqlite:///{tmp_path / 'optuna.db'}")
    work(book)
    assert book.over()
    left = remaining(plan, tmp_path)
    assert left.epochs == 0 and all(4 < s.spent <= 8 for s in left.searches.values())
    longer = remaining(a_plan(20), tmp_path)  # more epochs extend it
    assert [s.left for s in longer.searches.values()] == [20 - s.spent for s in left.searches.values()]


def test_searches_whose_time_is_over_have_only_their_running_trials_left(tmp_path: Path) -> None:
    plan = a_plan(time_budget_s=100.0)
    book = Book(plan, f"sqlite:///{tmp_path / 'optuna.db'}")
    book.ask("t0")
    book.report("t0", 1, 0.5)
    assert remaining(plan, tmp_path).epochs == 4 * 8 - 1
    write_json(tmp_path / "search_seconds.json", {"seconds": 101.0})
    left = remaining(plan, tmp_path)
    assert left.searched_s == 101.0
    assert [s.left for s in left.searches.values()] == [4, 0, 0, 0]
    assert list(left.runs.values()) == [(None, None), (), (), ()]  # no trial, no winner, nothing to confirm


def test_searches_that_were_given_up_have_nothing_left(tmp_path: Path) -> None:
    plan = a_plan()
    book = Book(plan, f"sqlite:///{tmp_path / 'optuna.db'}")
    for _ in range(3 * len(plan.searches())):
        book.ask("t")
        book.tell("t", "failed", "Its process ended.")
    assert remaining(plan, tmp_path).epochs == 0


def test_confirmation_goes_on_where_each_run_is(tmp_path: Path) -> None:
    plan = a_plan()
    book = Book(plan, f"sqlite:///{tmp_path / 'optuna.db'}")
    work(book)
    key, other, *_ = plan.searches()
    whole, half = (tmp_path / t.folder for t in plan.confirmations(key, book.winner(key)))  # type: ignore[arg-type]
    write_json(whole / "result.json", {"state": "complete"})
    half.mkdir(parents=True)
    for epoch in range(4):
        append_line(half / "epochs.jsonl", {"epoch": epoch})
    left = remaining(plan, tmp_path)
    assert left.runs[key] == (3,) and left.runs[other] == (None, None)


def test_defaults_and_incumbents_are_left_too(tmp_path: Path) -> None:
    plan = a_plan(budget=24)
    rules = Confirmation(seeds=2, folds=1, epochs=3, defaults=True, incumbents=3)  # no measure of 4 epochs: all leaders
    plan = dataclasses.replace(plan, study=dataclasses.replace(plan.study, confirmation=rules))
    assert [len(runs) for runs in remaining(plan, tmp_path).defaults.values()] == [2, 2, 2, 2]
    book = Book(plan, f"sqlite:///{tmp_path / 'optuna.db'}")
    work(book)
    fresh, left = Fresh.of(plan, book.progress()), remaining(plan, tmp_path)
    assert {key for key, runs in left.defaults.items() if runs} == set(fresh.defaulted)
    again = {key: len(fresh.again(key)) for key in plan.searches()}
    assert {key: len(runs) for key, runs in left.incumbents.items()} == {key: 3 * n for key, n in again.items()}
    assert sum(again.values()) > 0
    task = fresh.tasks()[-1]
    write_json(tmp_path / task.folder / "result.json", {"state": "failed"})
    one_less = remaining(plan, tmp_path).incumbents
    assert sum(map(len, one_less.values())) == 3 * sum(again.values()) - 1
