"""How far a study is, from folders with known numbers: what is done and left, how fast, what failed and how to see it again."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import pytest

from marginlab import watching
from marginlab.files import write_json
from marginlab.lock import locked
from marginlab.plan import SearchKey
from marginlab.search import Book, Ticket
from marginlab.watching import Failure, by_reason, dashboard_line, measure, replay_command, set_back, snapshot
from tests.report.synthetic import EPOCHS, Synthetic, edit_json, params_of

NOW = 1_700_000_000.0
CONFIRMATIONS = 6 * 3  # of the synthetic study, 4 epochs each; 6 searches of 12 epochs


@pytest.fixture
def made(tmp_path: Path) -> Synthetic:
    return Synthetic(tmp_path / "studies" / "demo")


def at_work(made: Synthetic, step: str, since: float) -> None:
    write_json(made.folder / "status.json", {"step": step, "since": since})


def lock_of(made: Synthetic) -> Path:
    return made.folder.with_name("demo.lock")


def test_a_finished_study_has_nothing_left(made: Synthetic) -> None:
    made.whole()
    at_work(made, "done", NOW)
    shot = snapshot(made.folder)
    assert (shot.study, shot.step, shot.confirmed, shot.confirmations) == ("demo", "done", CONFIRMATIONS, CONFIRMATIONS)
    assert shot.epochs_done == shot.epochs_total == 6 * 12 + CONFIRMATIONS * EPOCHS
    assert (shot.training, shot.failures, shot.pace, shot.seconds_left) == ([], [], None, None)


def test_a_study_is_at_work_while_its_lock_is_held(made: Synthetic) -> None:
    for step, free, taken in (
        ("search", "stopped", "search"),
        ("stopped", "stopped", "stopped"),  # it has just said so, and is about to go
        ("done", "done", "done"),
    ):
        with locked(lock_of(made)):
            at_work(made, step, time.time())
            assert snapshot(made.folder).step == taken
        assert snapshot(made.folder).step == free
    (made.folder / "status.json").unlink()
    assert snapshot(made.folder).step == "stopped"


@pytest.mark.parametrize("before", ["done", "stopped"])
def test_a_study_that_is_run_again_is_not_what_it_was_the_last_time(made: Synthetic, before: str) -> None:
    at_work(made, before, time.time() - 100)
    with locked(lock_of(made)):
        assert snapshot(made.folder).step == "starting"


# -- the pace -----------------------------------------------------------------------------------------------------------


def test_the_pace_is_that_of_the_last_minutes() -> None:
    slow = [NOW - 3600 + 60 * i for i in range(50)]  # one a minute, until 10 minutes ago
    fast = [NOW - 120 + 5 * i for i in range(25)]  # then 12 a minute for two minutes
    assert measure(slow + fast, 0, NOW) == pytest.approx(12)
    assert measure([*reversed(fast)], 0, NOW) == pytest.approx(12)


def test_epochs_that_take_longer_than_the_window_have_a_pace() -> None:
    assert measure([NOW - 600 * i for i in range(1, 9)], 0, NOW) == pytest.approx(3 / 40)


def test_the_pace_falls_when_nothing_ends_any_more() -> None:
    times = [NOW - 120 + 5 * i for i in range(25)]
    assert measure(times, 0, NOW + 120) == pytest.approx(6)
    assert measure(times, 0, NOW + 1200) < 1


def test_a_few_epochs_have_no_pace_nor_have_those_of_another_step() -> None:
    times = [NOW - 30 + 10 * i for i in range(3)]
    assert measure([], 0, NOW) is None and measure(times, 0, NOW) is None
    assert measure([NOW - 300 + i for i in range(200)], NOW - 60, NOW) is None


def test_times_in_the_future_do_not_count() -> None:
    """The clock was set back by more than the study has run: even the step began in the future."""
    before = [NOW + 7200 + 5 * i for i in range(720)]
    assert measure(before, NOW + 7200, NOW) is None
    assert measure(before + [NOW + 5 * i for i in range(25)], NOW + 7200, NOW + 120) == pytest.approx(12)


def test_it_is_seen_that_a_clock_was_set_back() -> None:
    assert set_back([(1.0, 2.0), (5000.0, 5010.0, 1500.0, 1510.0), (7000.0, 7010.0)]) == 5010.0
    assert set_back([(100.0, 90.0, 110.0), ()]) == float("-inf")  # two machines that differ a little


def test_the_pace_survives_a_clock_that_is_set_back_into_the_study(
    made: Synthetic, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two runs at work with an epoch every 4 s: 30 a minute. An hour's epochs lie in the hour that comes now."""
    made.trials(SearchKey("oai", "fixed", 0))
    first, second = (made.plan.trial(SearchKey("oai", "fixed", 0), n, params_of("fixed", 0), 0) for n in (8, 9))
    paths = [made.run(t, 0.3, 4, None) for t in (first, second)]
    made.clock += 3600
    (paths[0] / "attempts.json").touch()
    rows = [json.loads(line) for line in (paths[0] / "epochs.jsonl").read_text().splitlines()]
    began = rows[0]["time"] - 1800
    rows += [{**rows[-1], "epoch": 5, "time": began + 4}, {**rows[-1], "epoch": 6, "time": began + 8}]
    (paths[0] / "epochs.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    (paths[1] / "attempts.json").touch()
    at_work(made, "search", began - 600)
    with locked(lock_of(made)):
        for later in (10.0, 1800.0 + 30):  # in the future of the old epochs, then just among them
            monkeypatch.setattr(time, "time", lambda later=later: began + later)
            assert snapshot(made.folder).pace == pytest.approx(30)


def test_a_clock_that_was_set_forward_is_forgotten() -> None:
    times = [NOW - 86400 - 5 * i for i in range(50)] + [NOW - 60 + 5 * i for i in range(13)]
    assert measure(times, 0, NOW) == pytest.approx(12)


def test_another_machine_may_be_a_little_ahead() -> None:
    assert measure([NOW + 30 - 5 * i for i in range(61)], 0, NOW) == pytest.approx(12)


def test_pace_and_time_left_are_in_the_snapshot(made: Synthetic, monkeypatch: pytest.MonkeyPatch) -> None:
    made.whole()
    at_work(made, "confirmation", NOW - 1)
    for run in sorted(made.folder.glob("runs/oai/*/*/confirmation-02-*")):
        (run / "result.json").unlink()  # at work, after 2 of 4 epochs
        (run / "attempts.json").touch()
        rows = (run / "epochs.jsonl").read_text().splitlines(keepends=True)
        (run / "epochs.jsonl").write_text("".join(rows[:3]))
    monkeypatch.setattr(time, "time", lambda: made.clock)
    with locked(lock_of(made)):
        shot = snapshot(made.folder)
    assert shot.confirmed == CONFIRMATIONS - 3 and len(shot.training) == 3
    assert shot.training[0] == "oai automargin confirmation seed 2 fold 0: epoch 2, val/map 0.300"
    # A synthetic run has an epoch every 4 s, and the untrained network is none: 4 epochs in 20 s, 12 a minute.
    assert shot.pace == pytest.approx(12, rel=0.05)
    assert shot.epochs_done == shot.epochs_total - 3 * 2
    assert shot.seconds_left == pytest.approx(6 / shot.pace * 60)


def test_confirmations_of_a_former_winner_do_not_count(made: Synthetic) -> None:
    key = SearchKey("oai", "fixed", 0)
    for params in (params_of("fixed", 1), params_of("fixed", 0)):
        for task in made.plan.confirmations(key, params):
            made.confirmation(task)
        if params == params_of("fixed", 1):
            assert snapshot(made.folder).confirmed == 3
    book, _ = started(made)
    for step in range(1, EPOCHS + 1):
        book.report("oai/fixed/r0", step, 0.1 * step)
    book.tell("oai/fixed/r0", "complete")
    assert book.winner(key) == params_of("fixed", 0)
    assert snapshot(made.folder).confirmed == 3


# -- what failed --------------------------------------------------------------------------------------------------------


def started(made: Synthetic) -> tuple[Book, dict[str, Ticket]]:
    """The first trial of every search, held by a token that is the search's name."""
    book = Book(made.plan, f"sqlite:///{made.folder / 'optuna.db'}")
    tickets = {str(key): book.ask(str(key)) for key in made.plan.searches()}
    assert all(isinstance(t, Ticket) and str(t.key) == name for name, t in tickets.items())
    return book, tickets  # type: ignore[return-value]


def fail(made: Synthetic, path: Path, reason: str) -> None:
    edit_json(path / "result.json", state="failed", reason=reason)


def test_failed_trials_and_runs_are_listed_once_with_their_runs(made: Synthetic) -> None:
    book, tickets = started(made)
    made.study = made.plan.study
    oai, knees = SearchKey("oai", "fixed", 0), SearchKey("knees", "fixed", 0)
    # A trial over two folds: the first failed, the second, never begun, was given its result.
    trial = [made.plan.trial(oai, 0, tickets[str(oai)].params, fold) for fold in (0, 1)]
    paths = [made.run(task, 0.3, 2, "complete") for task in trial]
    (paths[0] / "attempts.json").touch()
    for path in paths:
        fail(made, path, "The loss was nan in epoch 3.")
    book.tell(str(oai), "failed", "The loss was nan in epoch 3.")
    # One whose parameters made no run, and one whose run was ended by what it reported.
    book.tell(str(knees), "failed", "These do not go together.")
    triplet = SearchKey("oai", "triplet", 0)
    stopped = made.run(made.plan.trial(triplet, 0, tickets[str(triplet)].params, 0), 0.3, 2, "pruned")
    book.report(str(triplet), 1, float("nan"))
    confirmation = made.confirmation(made.plan.confirmations(oai, params_of("fixed", 1))[2])
    fail(made, confirmation, "Boom: it went off.")
    found = snapshot(made.folder).failures
    assert [(str(f), f.run) for f in found] == [
        ("oai fixed trial 00: The loss was nan in epoch 3.", paths[0]),
        ("oai triplet trial 00: The objective was nan at step 1.", stopped),
        ("knees fixed trial 00: These do not go together.", None),
        ("oai fixed confirmation seed 2 fold 0: Boom: it went off.", confirmation),
    ]


def test_failures_are_counted_by_reason_whatever_their_numbers() -> None:
    reasons = ["The loss was nan in epoch 3: try 1e-05.", "Boom.", "The loss was inf in epoch 12: try 0.1.", "Bang."]
    failures = [Failure(str(i), r, None) for i, r in enumerate([*reasons, *reasons[1:2]])]
    assert [(n, f.name) for n, f in by_reason(failures)] == [(2, "0"), (2, "1"), (1, "3")]


def test_the_replay_command_names_the_run(made: Synthetic, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    task = made.plan.trial(SearchKey("oai", "fixed", 0), 3, params_of("fixed", 0), 0)
    path = made.run(task, 0.3, 2, "complete")
    assert replay_command(path) == f"marginlab replay {path.name} --workspace {tmp_path}"
    monkeypatch.chdir(tmp_path.parent)
    shutil.copytree(made.folder, made.folder.with_name("demo 2"))  # a study that was moved aside has the same runs
    other = made.folder.with_name("demo 2") / path.relative_to(made.folder)
    assert replay_command(other) == (
        f"marginlab replay '{tmp_path.name}/studies/demo 2/{task.folder}' --workspace {tmp_path.name}"
    )


def test_the_dashboards_line_can_be_pasted(made: Synthetic) -> None:
    line, _, hint = dashboard_line(made.folder).partition("  # ")
    assert line == f"optuna-dashboard sqlite:///{made.folder}/optuna.db" and hint == "pip install optuna-dashboard"


# -- the cost of a look -------------------------------------------------------------------------------------------------


def test_runs_that_have_ended_are_read_once(made: Synthetic, monkeypatch: pytest.MonkeyPatch) -> None:
    made.whole()
    at_work(made, "tracking", NOW)
    unended = sorted(made.folder.glob("runs/*/*/*/confirmation-02-*"))[0]
    result = (unended / "result.json").read_text()
    (unended / "result.json").unlink()
    with locked(lock_of(made)):
        before = snapshot(made.folder)
        read: list[Path] = []
        lines, whole = watching.read_lines, watching.read_json
        monkeypatch.setattr(watching, "read_lines", lambda p: read.append(p) or lines(p))
        monkeypatch.setattr(watching, "read_json", lambda p: read.append(p) or whole(p))
        assert snapshot(made.folder) == before
        assert [p for p in read if "runs" in p.parts] == [unended / "epochs.jsonl"]
        (unended / "result.json").write_text(result)
        assert snapshot(made.folder).confirmed == before.confirmed + 1
        fail(made, unended, "It was changed afterwards, which takes a session of its own.")
        assert len(snapshot(made.folder).failures) == 1
