"""What a terminal shows: the numbers of a snapshot in words, failures with their commands, and following until the end."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from marginlab import drawing
from marginlab.drawing import Watch, failure_lines, follow, one_line, pace_words, status_view
from marginlab.watching import Failure, Snapshot

SEARCH = {"epochs": 6, "budget": 12, "trials": 4, "complete": 1, "pruned": 1, "failed": 1, "running": 1, "best": 0.5125}
SHOT = Snapshot("demo", "search", {"oai/fixed/r0": SEARCH}, 0, 18, 20, 144, ["a", "b"], [], 12.0, 620.0)


def shown(what: object, width: int = 100, terminal: bool = False) -> str:
    out = Console(file=io.StringIO(), width=width, force_terminal=terminal)
    out.print(what)
    return out.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.parametrize(("left", "said"), [(45, "45 s"), (620, "10 min"), (5 * 3600, "5.0 h")])
def test_pace_and_time_left_in_words(left: float, said: str) -> None:
    assert pace_words(replace(SHOT, seconds_left=left)) == f", 12 a minute, about {said} left"


def test_no_pace_where_nothing_is_trained_or_too_little_is_known() -> None:
    assert pace_words(replace(SHOT, pace=None, seconds_left=None)) == ", measuring the pace"
    assert all(pace_words(replace(SHOT, step=step)) == "" for step in ("ray", "report", "done", "stopped", "starting"))


def test_a_row_per_search_with_its_trials_by_state_and_its_best() -> None:
    text = shown(status_view(SHOT))
    head, row, confirmation = text.splitlines()[:3]
    assert head.split() == ["search", "epochs", "complete", "pruned", "failed", "running", "best"]
    assert row.split()[0] == "oai/fixed" and row.split()[2:] == ["6/12", "1", "1", "1", "1", "0.512"]
    assert "0/18" in confirmation
    assert text.splitlines()[-1] == "searching: 20 of 144 epochs, 12 a minute, about 10 min left"


def test_a_search_keeps_its_whole_name_in_a_narrow_terminal() -> None:
    name = "cxr14/adatriplet/automargin"
    narrow = shown(status_view(replace(SHOT, searches={f"{name}/r0": SEARCH})), width=80)
    assert narrow.splitlines()[1].startswith(f"{name} ") and max(map(len, narrow.splitlines())) <= 80


def test_more_runs_at_work_than_fit_are_counted() -> None:
    text = shown(status_view(replace(SHOT, training=[f"run {i}" for i in range(9)])))
    assert "run 5" in text and "run 6" not in text and "and 3 more at work" in text


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    paths = [
        tmp_path / "studies" / "demo" / "runs" / "oai" / "fixed" / "r0" / f"trial-{i:04d}-f0-abc" for i in range(9)
    ]
    for p in paths:
        p.mkdir(parents=True)
    return paths


def test_each_failure_comes_with_the_command_that_reproduces_it(runs: list[Path], tmp_path: Path) -> None:
    failures = [Failure(f"trial {i}", f"The loss was nan in epoch {i}.", run) for i, run in enumerate(runs[:6])]
    failures[5] = Failure("trial 5", "These do not go together.", None)
    lines = [line.plain for line in failure_lines(failures)]
    assert len(lines) == 11
    assert lines[:2] == [
        "  failed: trial 0: The loss was nan in epoch 0.",
        f"    marginlab replay trial-0000-f0-abc --workspace {tmp_path}",
    ]
    assert lines[-1] == "  failed: trial 5: These do not go together."
    assert f"--workspace {tmp_path}" in "".join(shown(failure_lines(failures)[1], width=60).split("\n"))  # not cut off


def test_many_failures_are_summed_up_by_reason(runs: list[Path]) -> None:
    failures = [Failure(f"trial {i}", f"The loss was nan in epoch {i}.", run) for i, run in enumerate(runs)]
    lines = [line.plain for line in failure_lines([*failures, Failure("trial 9", "Boom.", None)])]
    assert lines[0] == "  9 failed, the first trial 0: The loss was nan in epoch 0."
    assert "replay trial-0000-f0-abc" in lines[1] and lines[2] == "  failed: trial 9: Boom." and len(lines) == 3
    letters = [Failure("t", "x" * n, None) for n in range(1, 10)]
    assert failure_lines(letters)[-1].plain == "  and 3 more, for 3 other reasons"


def test_one_line_says_it_all() -> None:
    assert one_line(replace(SHOT, failures=[Failure("t", "r", None)])) == (
        "searching: 20/144 epochs, 12 a minute, about 10 min left, 4 trials, 1 failed, 0/18 confirmation runs; "
        "best oai/fixed 0.512"
    )


class Looks:
    """A study that another process runs: what each look finds."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *found: Snapshot | Exception) -> None:
        self.found = list(found)
        monkeypatch.setattr(drawing, "snapshot", self)
        monkeypatch.setattr(drawing, "LOOK_PERIOD_S", 0.01)
        monkeypatch.setattr(drawing, "LINE_PERIOD_S", 0.0)

    def __call__(self, folder: Path) -> Snapshot:
        look = self.found.pop(0) if len(self.found) > 1 else self.found[0]
        if isinstance(look, Exception):
            raise look
        return look


@pytest.mark.parametrize("end", ["done", "stopped"])
def test_following_ends_when_the_study_does(monkeypatch: pytest.MonkeyPatch, end: str) -> None:
    starting, confirming = replace(SHOT, step="starting"), replace(SHOT, step="confirmation", confirmed=3)
    Looks(monkeypatch, starting, SHOT, OSError("being written"), confirming, replace(SHOT, step=end))
    out = Console(file=io.StringIO(), width=200)
    assert follow(out, Path()).step == end
    lines = out.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert [line.partition(":")[0] for line in dict.fromkeys(lines)] == [
        "starting",
        "searching",
        "confirming the winners on fresh seeds",
    ]


def test_following_draws_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    Looks(monkeypatch, SHOT, replace(SHOT, epochs_done=21), replace(SHOT, step="done"))
    out = Console(file=io.StringIO(), width=100, force_terminal=True)
    follow(out, Path())
    drawn = out.file.getvalue()  # type: ignore[attr-defined]
    assert "20 of 144 epochs" in drawn and "21 of 144 epochs" in drawn


def test_following_gives_up_on_a_folder_that_stays_unreadable(monkeypatch: pytest.MonkeyPatch) -> None:
    Looks(monkeypatch, SHOT, OSError("gone"))
    with pytest.raises(OSError, match="gone"):
        follow(Console(file=io.StringIO()), Path())


def test_a_run_shows_the_same_line_as_a_look_from_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    Looks(monkeypatch, SHOT)
    out = Console(file=io.StringIO(), width=200)
    with Watch(out, Path()) as watch:
        watch.step("search")
        for _ in range(500):
            if one_line(SHOT) in out.file.getvalue():  # type: ignore[attr-defined]
                break
            watch._over.wait(0.01)
    assert one_line(SHOT) in out.file.getvalue()  # type: ignore[attr-defined]
