"""The book of searches, driven by simulated trials: budgets, states, order, and what a kill leaves behind."""

import math
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from marginlab.plan import Plan
from marginlab.search import FINISHED, WAIT, Book, Ticket, read_progress
from marginlab.study import Search
from marginlab.study_database import Sqlite
from tests.test_study import AUTO, FIXED, a_plan

EPOCHS = 4


def plan_of(budget: int = 24, folds: tuple = (0,), **search: Any) -> Plan:
    rules = Search(
        epochs_budget=budget, max_epochs=EPOCHS, folds=folds, startup_trials=3, pruner_startup_trials=2, **search
    )
    return a_plan(search=rules, arms=[AUTO, FIXED])


def curve(ticket: Ticket, step: int) -> float:
    """A learning curve that depends on the parameters alone."""
    height = sum(math.sin(7.0 * float(v)) for v in ticket.params.values())
    return height * (1 - math.exp(-step / 2))


def work(book: Book, limit: int = 10_000) -> int:
    """One worker trains trials until there are none, or it is killed after ``limit`` reports. Returns the reports left."""
    token = 0
    while limit > 0:
        ticket = book.ask(f"t{token}")
        if ticket == FINISHED:
            return limit
        assert isinstance(ticket, Ticket)
        for step in range(1, EPOCHS + 1):
            limit -= 1
            if not book.report(f"t{token}", step, curve(ticket, step)):
                break
            if limit <= 0:
                return 0
        else:
            book.tell(f"t{token}", "complete")
        token += 1
    return 0


def history(storage: Any) -> dict[str, list[tuple[Any, ...]]]:
    storage = optuna.storages.get_storage(storage)
    return {
        s.study_name: [
            (t.number, t.state, t.value, tuple(sorted(t.params.items())), tuple(sorted(t.intermediate_values.items())))
            for t in storage.get_all_trials(s._study_id)
        ]
        for s in storage.get_all_studies()
    }


def test_budgets_are_spent_to_the_last_whole_trial_and_pruned_epochs_come_back(tmp_path: Path) -> None:
    plan = plan_of()
    book = Book(plan, f"sqlite:///{tmp_path / 'a.db'}")
    work(book)
    for key, s in book.progress().items():
        spent = s["epochs"]
        assert spent <= 24 and 24 - spent < EPOCHS, key
        assert s["trials"] >= 24 // EPOCHS and s["complete"] + s["pruned"] == s["trials"]
        assert s["modelled"] == s["trials"] - 3  # the first three are the start and random ones
    assert sum(s["pruned"] for s in book.progress().values()) > 0
    assert read_progress(Sqlite(tmp_path / "a.db"), plan) == book.progress()


def test_searches_begin_with_the_published_default_and_are_dealt_round_robin(tmp_path: Path) -> None:
    plan = plan_of()
    book = Book(plan, f"sqlite:///{tmp_path / 'a.db'}")
    first = [book.ask(f"t{i}") for i in range(8)]
    assert [t.key for t in first] == plan.searches() * 2  # type: ignore[union-attr]
    assert first[0].params == {"margin.k_delta": 2.0, "loss.lam": 1.0}  # type: ignore[union-attr]
    assert first[1].params == {"margin.epsilon": 0.25}  # type: ignore[union-attr]
    assert first[4].params != first[0].params  # type: ignore[union-attr]


def test_states_are_the_right_ones(tmp_path: Path) -> None:
    plan = plan_of()
    book = Book(plan, f"sqlite:///{tmp_path / 'a.db'}")
    tickets = {f"t{i}": book.ask(f"t{i}") for i in range(4)}
    assert not book.report("t0", 1, math.nan)
    for step in range(1, EPOCHS + 1):
        assert book.report("t1", step, 0.1 * step)
    book.tell("t1", "complete")
    book.tell("t1", "failed", "told twice is told once")
    book.report("t2", 1, 0.5)
    book.tell("t2", "complete")  # it ended early without having been pruned: that is a failure
    book.tell("t3", "failed", "It raised.")
    states = {k: v[0][1] for k, v in history(f"sqlite:///{tmp_path / 'a.db'}").items()}
    keys = {t: str(ticket.key) for t, ticket in tickets.items()}  # type: ignore[union-attr]
    assert states[keys["t0"]] == TrialState.FAIL and states[keys["t1"]] == TrialState.COMPLETE
    assert states[keys["t2"]] == TrialState.FAIL and states[keys["t3"]] == TrialState.FAIL
    failures = book.progress()[keys["t0"]]["failures"]
    assert "nan at step 1" in failures[0]
    assert book.progress()[keys["t1"]]["best"] == pytest.approx(0.4)  # the value at the last epoch


def test_workers_wait_for_epochs_that_a_running_trial_may_give_back() -> None:
    plan = plan_of(budget=EPOCHS)
    book = Book(plan, optuna.storages.InMemoryStorage())
    tickets = [book.ask(f"t{i}") for i in range(4)]
    assert all(isinstance(t, Ticket) for t in tickets) and book.ask("t9") == WAIT
    for i in range(4):
        for step in range(1, EPOCHS + 1):
            book.report(f"t{i}", step, 0.5)
        book.tell(f"t{i}", "complete")
    assert book.ask("t9") == FINISHED


def test_a_search_whose_trials_all_fail_is_given_up() -> None:
    plan = plan_of(budget=1000)
    book = Book(plan, optuna.storages.InMemoryStorage())
    asked = 0
    while (ticket := book.ask(f"t{asked}")) != FINISHED:
        assert isinstance(ticket, Ticket)
        book.tell(f"t{asked}", "failed", "no such layer")
        asked += 1
    assert asked == 3 * len(plan.searches()) and book.over()
    assert all(book.winner(key) is None for key in plan.searches())


def test_a_search_is_not_given_up_while_a_trial_of_it_is_running() -> None:
    plan = plan_of(budget=40)
    book = Book(plan, optuna.storages.InMemoryStorage())
    held = [f"t{i}" for i in range(4 * len(plan.searches()))]
    for token in held:
        book.ask(token)
    for token in held[: 3 * len(plan.searches())]:  # three of each search fail, the fourth is at work
        book.tell(token, "failed", "no such layer")
    assert book.ask("x") == WAIT and not book.over()
    last = held[-1]
    for step in range(1, EPOCHS + 1):
        book.report(last, step, 0.5)
    book.tell(last, "complete")
    assert isinstance(book.ask("x"), Ticket)


def test_several_folds_are_one_trial() -> None:
    plan = plan_of(budget=16, folds=(0, 1))
    book = Book(plan, optuna.storages.InMemoryStorage())
    book.ask("t0")
    for step in range(1, 2 * EPOCHS + 1):
        assert book.report("t0", step, 0.01 * step)
    book.tell("t0", "complete")
    progress = book.progress()["oai/ada/auto/r0"]
    assert progress["best"] == pytest.approx(0.08) and progress["epochs"] == 8


def test_killed_at_every_report_the_search_ends_as_if_it_had_not_been() -> None:
    """A worker that is killed resumes its trial under its own number and reports its epochs again."""
    plan = plan_of(budget=12)
    storage = optuna.storages.InMemoryStorage()
    work(Book(plan, storage))
    reference = history(storage)
    for kill in range(1, sum(len(t[4]) for trials in reference.values() for t in trials)):
        storage = optuna.storages.InMemoryStorage()
        work(Book(plan, storage), limit=kill)
        work(Book(plan, storage))
        assert history(storage) == reference, f"killed after report {kill}"


def test_a_restarted_book_knows_the_workers_that_are_alive(tmp_path: Path) -> None:
    plan = plan_of()
    url = f"sqlite:///{tmp_path / 'a.db'}"
    ticket = Book(plan, url, session="now").ask("now/1")
    again = Book(plan, url, session="now")
    assert again.report("now/1", 1, 0.3) and again.ask("now/1") == ticket
    later = Book(plan, url, session="later")
    assert later.ask("later/7").number == 0  # type: ignore[union-attr]
    assert later.live["later/7"].ticket.key == ticket.key  # type: ignore[union-attr]
