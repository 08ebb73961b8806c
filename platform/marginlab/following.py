"""What a terminal shows of a job on a cluster: its log as it grows, and the table that ``run`` draws."""

from __future__ import annotations

import queue
import re
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from marginlab.drawing import LOOK_PERIOD_S, TRAINING, progress_view, status_view
from marginlab.values import InputError
from marginlab.watching import ENDED

if TYPE_CHECKING:
    from marginlab.cluster.jobs import Job, Jobs
    from marginlab.progress import Progress

PENDING_S = 120.0  # a job that has not begun by then waits for what may never come
# Lines that the table says better, of jobs whose log is no terminal; and what Ray itself writes before a job begins.
_TABLE_SAYS = re.compile(
    rf"({'|'.join(TRAINING)}): \d+/\d+ epochs|.* \.\.\.$|.*Runtime env is setting up|Running entrypoint "
)
STATES = {
    "PENDING": "waiting to begin",
    "RUNNING": "running",
    "SUCCEEDED": "done",
    "FAILED": "failed",
    "STOPPED": "stopped",
}


class _Log:
    """A job's log, from its beginning, once each line, over a connection that may break."""

    def __init__(self, jobs: Jobs, job_id: str) -> None:
        self.jobs, self.job_id = jobs, job_id
        self.seen = 0  # characters handed out
        self._open()

    def _open(self) -> None:
        self.pieces: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.passed = 0  # characters that came over this connection
        self.thread = self.jobs.tail(self.job_id, self.pieces.put)

    def new(self) -> str:
        out = ""
        while not self.pieces.empty():
            piece = self.pieces.get()
            known = max(self.seen - self.passed, 0)
            self.passed += len(piece)
            out += piece[known:]
        self.seen += len(out)
        return out

    def mend(self) -> None:
        if not self.thread.is_alive() and self.pieces.empty():
            self._open()

    def rest(self) -> str:
        """What is left once the job is over."""
        whole = self.jobs.log(self.job_id)
        out, self.seen = whole[self.seen :], len(whole)
        return out


def follow(console: Console, jobs: Jobs, job: Job, log: bool = True, table: bool = True) -> Job:
    """Draw a job until it is over; returns it as it was then. It is only looked at, and a line that breaks is mended.

    Raises:
        InputError: it waits to begin for longer than ``PENDING_S``.
    """
    from marginlab.cluster.jobs import Away

    tail = _Log(jobs, job.id) if log else None
    drawn, since, away, unsaid = table and console.is_terminal, time.monotonic(), False, ""
    spinner = Spinner("dots")
    with Live(console=console, refresh_per_second=4, transient=True) if drawn else nullcontext() as live:
        while True:
            try:
                job = jobs.look(job.id)
                if tail is not None:
                    unsaid = _say(console, unsaid + (tail.rest() if job.over else tail.new()), drawn)
                    tail.mend()
                if live is not None:
                    live.update(_view(jobs, job, spinner))
                if away:
                    console.print("[dim]It answers again.[/]")
                away = False
            except Away as e:
                if not away:
                    console.print(f"[yellow]![/] {e} The job goes on; trying again.", highlight=False, soft_wrap=True)
                away = True
            if job.over:
                _say(console, unsaid + "\n" if unsaid else "", drawn)
                return job
            if job.state == "PENDING" and time.monotonic() - since > PENDING_S:
                raise InputError(pending(job, jobs.address))
            time.sleep(LOOK_PERIOD_S)


def pending(job: Job, address: str) -> str:
    return (
        f"The job {job.id} still waits to begin: {job.message.rstrip('.') or 'the cluster has no place for its driver'}. Look at "
        "the cluster (ray status on its head): the head must be up, and must have what the job asks for. The job stays in "
        f"the queue for 15 minutes; marginlab logs {job.id} --address {address} shows whether it began."
    )


def _say(console: Console, text: str, drawn: bool) -> str:
    """Print the whole lines of a text, less what the table shows; returns what comes after the last of them."""
    *lines, rest = text.split("\n")
    for line in lines:
        if not (drawn and _TABLE_SAYS.match(line)):
            console.print(Text.from_ansi(line), soft_wrap=True)
    return rest


def _view(jobs: Jobs, job: Job, spinner: Spinner) -> RenderableType:
    progress = jobs.progress(job)
    if progress is None or not progress.doing:
        head = Table.grid(padding=(0, 1))
        head.add_row(spinner, f"{job.id}: {STATES[job.state]}")
        return head
    return progress_view(progress, spinner)


def job_view(job: Job, progress: Progress | None) -> RenderableType:
    """One job as ``status`` shows it: the table of its study where it has shown one."""
    if progress is not None and job.over:  # one that was killed did not say that it is at work no more
        shot = progress.shot
        if shot is not None and shot.step not in ENDED:
            shot = replace(shot, step="stopped", training=[])
        progress = replace(progress, doing="", shot=shot)
    lines: list[RenderableType] = [] if progress is None or progress.shot is None else [status_view(progress.shot)]
    if progress is not None and progress.doing and progress.shot is None:
        lines.append(Text(f"{progress.doing} {progress.seconds:.0f} s {progress.detail}".rstrip()))
    return Group(*lines, Text(f"{job.id}: {STATES[job.state]}{_since(job)}", style="bold"))


def jobs_view(jobs: list[Job], progress: Callable[[Job], Progress | None]) -> RenderableType:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for header in ("job", "study", "state", "epochs"):
        table.add_column(header, overflow="fold")
    for job in jobs:
        shown = progress(job)
        shot = shown.shot if shown else None
        epochs = f"{shot.epochs_done}/{shot.epochs_total}" if shot else ""
        table.add_row(job.id, job.study, f"{STATES[job.state]}{_since(job)}", epochs)
    return table


def _since(job: Job) -> str:
    hours = ((job.ended or time.time()) - job.began) / 3600
    lasted = f"{hours * 60:.0f} min" if hours < 2 else f"{hours:.1f} h"
    began = time.strftime("%d %b %H:%M", time.localtime(job.began))
    return f", begun {began}, {lasted}"


def ended(job: Job) -> str:
    """Why a job that did not end well ended."""
    if job.exit_code == 130:
        return "it was asked to stop, and has: what was finished is kept"
    if job.exit_code is not None and job.exit_code < 0:
        return f"its process was killed (signal {-job.exit_code})"
    if job.exit_code is not None and job.exit_code > 128:
        return f"its process was killed (signal {job.exit_code - 128})"
    if job.exit_code is not None:
        return f"it ended with exit code {job.exit_code}; the reason is in its log"
    return " ".join(job.message.split())[:600] or "Ray does not say why"
