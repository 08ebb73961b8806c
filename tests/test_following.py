from __future__ import annotations

import dataclasses
import io
import threading
from collections.abc import Callable

import pytest
from rich.console import Console

from marginlab import following
from marginlab.cluster.jobs import Away, Job, Record
from marginlab.following import ended, follow, job_view
from marginlab.progress import Progress
from marginlab.values import InputError
from tests.test_progress import SHOT

RECORD = Record("x", "/w", ("studies/x.py", "--workspace", "/w"), "abc")
JOB = Job("x-1", "x", "RUNNING", "", 0.0, None, None, RECORD, {}, "node", 1, "10.0.0.1")


class Cluster:
    """Answers ``look`` with these states, one after another; an error is raised. Its line breaks in the middle of the log."""

    address = "http://head:8265"

    def __init__(self, states: list[str | Exception], log: str = "") -> None:
        self.states, self.whole, self.opened = states, log, 0

    def look(self, job_id: str) -> Job:
        state = self.states.pop(0) if len(self.states) > 1 else self.states[0]
        if isinstance(state, Exception):
            raise state
        return dataclasses.replace(JOB, state=state)

    def tail(self, job_id: str, say: Callable[[str], None]) -> threading.Thread:
        self.opened += 1
        half = len(self.whole) // 2
        for piece in (self.whole[: half - 3], self.whole[half - 3 : half]):
            say(piece)
        thread = threading.Thread(target=lambda: None)
        thread.start()
        thread.join()
        return thread

    def log(self, job_id: str) -> str:
        return self.whole


def watched(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> tuple[Job, str]:
    monkeypatch.setattr(following, "LOOK_PERIOD_S", 0)
    console = Console(file=io.StringIO(), width=100)
    job = follow(console, cluster, JOB)  # type: ignore[arg-type]
    return job, console.file.getvalue()  # type: ignore[attr-defined]


def test_every_line_is_said_once_though_the_line_breaks(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [f"line {i}" for i in range(9)] + ["the end without a new line"]
    cluster = Cluster(["RUNNING", "RUNNING", "RUNNING", "SUCCEEDED"], "\n".join(lines))
    job, said = watched(cluster, monkeypatch)
    assert job.state == "SUCCEEDED" and said.splitlines() == lines and cluster.opened > 1


def test_a_cluster_that_is_away_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    away: list[str | Exception] = [Away("It is away."), Away("It is away.")]
    job, said = watched(Cluster(["RUNNING", *away, "RUNNING", "FAILED"], "a\n"), monkeypatch)
    assert job.state == "FAILED" and said.count("It is away. The job goes on; trying again.") == 1
    assert "It answers again." in said


def test_a_job_that_never_begins_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "PENDING_S", -1.0)
    with pytest.raises(InputError, match="x-1 still waits to begin: the cluster has no place for its driver"):
        watched(Cluster(["PENDING"]), monkeypatch)


def test_a_job_that_was_killed_is_not_shown_at_work() -> None:
    killed = dataclasses.replace(JOB, state="FAILED", exit_code=-9, ended=60.0)
    console = Console(file=io.StringIO(), width=100)
    console.print(job_view(killed, Progress("searching", "", 1.0, SHOT)))
    said = console.file.getvalue()  # type: ignore[attr-defined]
    assert "stopped: 4 of 12 epochs" in said and "trial 02: epoch 1" not in said and "x-1: failed" in said
    assert ended(killed) == "its process was killed (signal 9)"
    assert "asked to stop" in ended(dataclasses.replace(killed, exit_code=130))
    assert ended(dataclasses.replace(killed, exit_code=2)).startswith("it ended with exit code 2")
    assert ended(dataclasses.replace(killed, exit_code=None, message="no\nplace")) == "no place"
