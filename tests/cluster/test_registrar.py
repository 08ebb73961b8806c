"""The registrar without Ray: a storage that cannot be written for a while, time that is over, processes that are gone."""

from __future__ import annotations

import dataclasses
import resource
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
import pytest

from marginlab import bucket, files, stopping, study_database
from marginlab.cluster.registrar import REFUSALS, Registrar
from marginlab.declaration import declare
from marginlab.hindrance import hindrance
from marginlab.plan import Plan
from marginlab.runs import Recorder, RunFolder
from marginlab.search import read_progress
from marginlab.study import Study
from marginlab.study_database import Sqlite
from tests.cluster import studies


def begun(folder: Path, study: Study = studies.killed) -> Path:
    declare(folder, Plan(study, {"oai": "f00"}))
    return folder


def trials(folder: Path) -> list[tuple[object, ...]]:
    with study_database.of(folder).reading() as storage:
        found = optuna.load_study(study_name="oai/fixed/r0", storage=storage).trials
    return [(t.number, t.state, t.params, t.intermediate_values, t.user_attrs["modelled"]) for t in found]


def work(folder: Path) -> list[tuple[object, ...]]:
    """Ask for all trials of the study one by one and report their epochs."""
    actor = Registrar(str(folder), "s")
    number = 0
    while not isinstance(ask := actor.ask(f"s/{number}"), str):
        for epoch in (1, 2, 3):
            if not actor.report(ask["token"], epoch, 0.1 * epoch + 0.01 * number):
                break
        actor.tell(ask["token"], "complete")
        number += 1
    assert ask == "finished" and actor.over()
    return trials(folder)


@contextmanager
def full_disk() -> Iterator[None]:
    """No file of this process can grow: real, partial writes and real errors."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def lift(seconds: float) -> threading.Thread:
    """Give the disk back after a while."""
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    timer = threading.Timer(seconds, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard)))
    timer.start()
    return timer


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[object, ...]]:
    return work(begun(tmp_path_factory.mktemp("undisturbed")))


def test_a_full_disk_makes_it_wait_and_nothing_is_lost_or_doubled(
    tmp_path: Path, undisturbed: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    monkeypatch.setattr(Registrar, "report", slowed(Registrar.report, waits))
    monkeypatch.setattr(Registrar, "ask", slowed(Registrar.ask, waits))
    monkeypatch.setattr(Registrar, "tell", slowed(Registrar.tell, waits))
    assert work(begun(tmp_path)) == undisturbed
    assert len(waits) >= 9 and min(waits) > 0.25  # each call met the full disk and outlived it


def slowed(call, waits):  # type: ignore[no-untyped-def]
    """The call, begun on a full disk that is given back a moment later."""

    def calling(*args, **kwargs):  # type: ignore[no-untyped-def]
        began = time.monotonic()
        with full_disk():
            timer = lift(0.3)
            try:
                return call(*args, **kwargs)
            finally:
                timer.join()
                waits.append(time.monotonic() - began)

    return calling


def test_a_locked_database_makes_it_wait(tmp_path: Path, undisturbed: object) -> None:
    folder = begun(tmp_path)
    Registrar(str(folder), "first")  # makes the tables
    other = sqlite3.connect(folder / "optuna.db", isolation_level=None, check_same_thread=False)
    other.execute("BEGIN EXCLUSIVE")
    assert "optuna.db cannot be written (database is locked)" in hindrance(folder)
    timer = threading.Timer(6.0, lambda: other.execute("ROLLBACK"))  # longer than sqlite itself waits
    timer.start()
    began = time.monotonic()
    assert work(folder) == undisturbed
    assert time.monotonic() - began > 5.0
    assert hindrance(folder) == ""


def test_a_full_disk_is_named(tmp_path: Path) -> None:
    folder = begun(tmp_path)
    with full_disk():
        assert "cannot be written (File too large). The study waits for up to 4 minutes" in hindrance(folder)
    assert hindrance(folder) == ""


def test_patience_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "PATIENCE_S", 0.5)
    actor = Registrar(str(begun(tmp_path)), "s")
    with full_disk(), pytest.raises(optuna.exceptions.StorageInternalError):
        actor.ask("s/0")
    monkeypatch.setattr(files, "PATIENCE_S", 0.3)
    with full_disk(), pytest.raises(OSError, match="File too large"):
        files.write_text(tmp_path / "a", "b")
    assert not (tmp_path / "a").exists() and not list(tmp_path.glob(".a.*"))


def test_an_end_that_was_refused_for_too_long_is_told_with_the_next_try(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of it was done in memory: a trial would stay unended, and the search would wait for it without an end."""
    actor = Registrar(str(begun(tmp_path)), "s")
    first = actor.ask("s/0")
    for epoch in (1, 2, 3):
        assert actor.report(first["token"], epoch, 0.5)
    with monkeypatch.context() as m:
        m.setattr(files, "PATIENCE_S", 0.5)
        with full_disk(), pytest.raises(REFUSALS):
            actor.tell(first["token"], "complete")
    actor.tell(first["token"], "complete")
    (ended,) = trials(tmp_path)
    assert ended[1] == optuna.trial.TrialState.COMPLETE
    assert actor.ask("s/1")["folders"] != first["folders"]


def test_one_that_begins_while_the_database_is_away_is_there_when_it_is_back(tmp_path: Path) -> None:
    folder = begun(tmp_path)
    first = Registrar(str(folder), "s").ask("s/0")
    other = sqlite3.connect(folder / "optuna.db", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    actor = Registrar(str(folder), "s")
    other.execute("ROLLBACK")
    assert actor.ask("s/0")["folders"] == first["folders"] and not actor.trouble()


def test_when_the_time_is_over_no_trial_begins_and_those_begun_end_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rules = dataclasses.replace(studies.killed.search, epochs_budget=300, time_budget_s=100.0)
    folder = begun(tmp_path, dataclasses.replace(studies.killed, search=rules))
    files.write_json(folder / "search_seconds.json", {"seconds": 40.0})  # of earlier sessions
    actor = Registrar(str(folder), "s")
    first = actor.ask("s/0")
    assert 40 <= actor.watch.seconds() < 100
    monkeypatch.setattr(actor.watch, "seconds", lambda: 100.0)
    assert actor.ask("s/1") == "finished" and not actor.over()
    for epoch in (1, 2, 3):
        assert actor.report(first["token"], epoch, 0.5)
    actor.tell(first["token"], "complete")
    assert actor.over() and actor.ask("s/2") == "finished"
    (found,) = actor.found().values()
    assert found["params"] is not None


def test_a_process_that_is_gone_has_failed_unless_the_study_stops(tmp_path: Path) -> None:
    folder = begun(tmp_path)
    actor = Registrar(str(folder), "a")
    actor.ask("a/0")
    actor.gone("a/0")
    (failed,) = trials(folder)
    assert failed[1] == optuna.trial.TrialState.FAIL
    second = actor.ask("a/1")
    stopping.ask(folder)
    actor.gone("a/1")
    assert actor.ask("a/2") == "finished" and not actor.over()
    stopping.clear(folder)
    assert Registrar(str(folder), "b").ask("b/0")["folders"] == second["folders"]  # under its own number


def test_a_wish_to_stop_that_object_storage_keeps_back_for_a_moment_is_heard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    actor = Registrar(str(begun(tmp_path)), "a")
    actor.ask("a/0")
    answers: list[Any] = [bucket.Away("The storage does not answer."), True]

    def there(path: Path) -> bool:
        if isinstance(answer := answers.pop(0), Exception):
            raise answer
        return bool(answer)

    monkeypatch.setattr(bucket, "there", there)
    monkeypatch.setattr(bucket, "key_of", lambda path: f"bucket/{path.name}")
    actor.gone("a/0")
    assert not answers and [t[1] for t in trials(actor.folder)] == [optuna.trial.TrialState.RUNNING]


def test_what_the_platform_cannot_do_is_no_trials_failure(tmp_path: Path) -> None:
    folder = begun(tmp_path)
    actor = Registrar(str(folder), "a")
    first = actor.ask("a/0")
    actor.halt("a/0", "OSError: [Errno 28] No space left on device")
    actor.gone("a/0")
    assert actor.ask("a/1") == "finished" and not actor.over()
    assert actor.trouble().startswith("The study cannot go on: OSError: [Errno 28] No space left on device. Mend it")
    assert Registrar(str(folder), "b").ask("b/0")["folders"] == first["folders"]


def test_too_many_failures_stop_the_study_in_a_sentence(tmp_path: Path) -> None:
    rules = dataclasses.replace(studies.killed.search, epochs_budget=300, failed_limit=0.4)
    actor = Registrar(str(begun(tmp_path, dataclasses.replace(studies.killed, search=rules))), "s")
    at_work = [actor.ask(f"s/{number}")["token"] for number in range(10)]

    def complete(token: str) -> None:
        for epoch in (1, 2, 3):
            actor.report(token, epoch, 0.5)
        actor.tell(token, "complete")

    for number in range(8):
        assert not actor.trouble()
        if number % 2:
            actor.tell(at_work[number], "failed", "ValueError: no.")
        else:
            complete(at_work[number])
    assert actor.ask("s/10") == "finished"
    for token in at_work[8:]:  # four of ten are not too many, but nobody asks any more
        complete(token)
    assert actor.ask("s/11") == "finished"
    assert actor.trouble().startswith(
        "4 of the 8 trials that ended have failed, more than Search.failed_limit (0.4) allows; 4 times: ValueError: no."
    )


def test_a_trial_that_ended_gets_its_result_even_if_its_process_died_before_writing_it(tmp_path: Path) -> None:
    rules = dataclasses.replace(studies.killed.search, pruner_warmup_epochs=0, pruner_startup_trials=1)
    folder = begun(tmp_path, dataclasses.replace(studies.killed, search=rules))
    actor = Registrar(str(folder), "a")
    good = actor.ask("a/0")
    for epoch in (1, 2, 3):
        assert actor.report("a/0", epoch, 0.9)
    actor.tell("a/0", "complete")
    bad = actor.ask("a/1")
    trained_on = {"device": "cpu", "workers": 1, "threads": 3}
    Recorder(RunFolder.open(Path(bad["folders"][0])), trained_on)
    assert not actor.report("a/1", 1, 0.1)  # pruned in the storage, and killed at this moment
    assert RunFolder.open(Path(bad["folders"][0])).result() is None
    Registrar(str(folder), "b")
    for ask, state in ((good, "complete"), (bad, "pruned")):
        result = RunFolder.open(Path(ask["folders"][0])).result()
        assert result is not None and result["state"] == state
    assert result["trained_on"] == trained_on  # as had it written the result itself


def test_a_wish_to_stop_that_is_taken_back_leaves_the_trial_to_the_next_who_asks(tmp_path: Path) -> None:
    actor = Registrar(str(begun(tmp_path)), "a")
    first = actor.ask("a/0")
    stopping.ask(actor.folder)
    actor.gone("a/0")
    stopping.clear(actor.folder)
    assert actor.ask("a/1")["folders"] == first["folders"]


def test_a_database_that_is_being_made_shows_no_search_yet(tmp_path: Path) -> None:
    plan = Plan(studies.killed, {"oai": "f00"})
    database = tmp_path / "optuna.db"
    database.touch()
    assert read_progress(Sqlite(database), plan) == {}
    with sqlite3.connect(database) as connection:
        connection.execute("CREATE TABLE studies (study_id INTEGER)")
    assert read_progress(Sqlite(database), plan) == {}
