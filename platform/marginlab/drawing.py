"""What a terminal shows of a study, run here or elsewhere: a live table where there is a terminal, a line now and then where not."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import nullcontext, suppress
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from marginlab.progress import Progress, Publish
from marginlab.watching import ENDED, Failure, Snapshot, by_reason, replay_command, snapshot

SAYS = {
    "phantoms": "rendering phantoms",
    "prepare": "preparing datasets",
    "ray": "starting Ray",
    "estimate": "measuring the pace",
    "search": "searching",
    "confirmation": "confirming the winners on fresh seeds",
    "tracking": "recording in MLflow",
    "report": "writing the report",
    "starting": "starting",
    "done": "done",
    "stopped": "stopped",
}
TRAINING = (SAYS["search"], SAYS["confirmation"])  # steps in which epochs are in progress
LOOK_PERIOD_S = 2.0  # between looks at the study's folder
FETCH_PERIOD_S = 10.0  # between looks at a folder that is elsewhere
LINE_PERIOD_S = 10.0  # between lines where the output is no terminal
PATIENCE = 15  # looks in a row that may fail
TRIAL_STATES = ("complete", "pruned", "failed", "running")
BAR = 8  # characters: a usual search's row fits into 80
AT_WORK, FAILURES, MENDED = 6, 6, 3  # lines of each; more are summed up


def status_view(shot: Snapshot) -> RenderableType:
    """The state of a study: a row per search, confirmation, what is at work, what failed and how to see it again."""
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    for header in ("search", "epochs", "", *TRIAL_STATES, "best"):
        table.add_column(header, justify="left" if header in ("search", "epochs") else "right", overflow="fold")
    for key, s in shot.searches.items():
        over = shot.step not in ("search", "stopped", "starting", "ray")
        total = s["epochs"] if over else s["budget"]
        counts = [Text(str(s[state]), style="red" if state == "failed" and s[state] else "") for state in TRIAL_STATES]
        table.add_row(
            key.removesuffix("/r0"),
            ProgressBar(total=max(total, 1), completed=s["epochs"], width=BAR),
            f"{s['epochs']}/{s['budget']}",
            *counts,
            "" if s["best"] is None else f"{s['best']:.3f}",
        )
    table.add_row(
        "confirmation",
        ProgressBar(total=shot.confirmations, completed=shot.confirmed, width=BAR),
        f"{shot.confirmed}/{shot.confirmations}",
        "runs",
    )
    lines: list[RenderableType] = [table]
    lines += [Text(f"  {line}", style="dim") for line in shot.training[:AT_WORK]]
    if len(shot.training) > AT_WORK:
        lines.append(Text(f"  and {len(shot.training) - AT_WORK} more at work", style="dim"))
    lines += failure_lines(shot.failures)
    lines += [Text(f"  mended: {sentence}", style="yellow") for sentence in shot.mended[-MENDED:]]
    if len(shot.mended) > MENDED:
        lines.append(Text(f"  and {len(shot.mended) - MENDED} mended before", style="yellow"))
    if shot.away:
        lines.append(Text(f"  {shot.away}", style="yellow"))
    total = f"{shot.epochs_done} of {shot.epochs_total} epochs"
    lines.append(Text(f"{SAYS.get(shot.step, shot.step)}: {total}{pace_words(shot)}", style="bold"))
    return Group(*lines)


def failure_lines(failures: list[Failure]) -> list[Text]:
    """A sentence for each failure and the command that reproduces it; many of them are summed up by reason."""
    lines = []
    listed = [(1, f) for f in failures] if len(failures) <= FAILURES else by_reason(failures)
    for count, failure in listed[:FAILURES]:
        what = f"failed: {failure}" if count == 1 else f"{count} failed, the first {failure}"
        lines.append(Text(f"  {what}", style="red"))
        if failure.run is not None:
            lines.append(Text(f"    {replay_command(failure.run)}", style="dim", no_wrap=True, overflow="fold"))
    if more := listed[FAILURES:]:
        lines.append(Text(f"  and {sum(n for n, _ in more)} more, for {len(more)} other reasons", style="red"))
    return lines


def pace_words(shot: Snapshot) -> str:
    """How fast the epochs go and how long the rest will take; empty where nothing is being trained."""
    if shot.step not in ("search", "confirmation"):
        return ""
    if shot.pace is None or shot.seconds_left is None:
        return ", measuring the pace"
    return f", {shot.pace:.3g} a minute, about {_duration(shot.seconds_left)} left"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def one_line(shot: Snapshot) -> str:
    best = [f"{k.removesuffix('/r0')} {s['best']:.3f}" for k, s in shot.searches.items() if s["best"] is not None]
    trials = sum(s["trials"] for s in shot.searches.values())
    return (
        f"{SAYS.get(shot.step, shot.step)}: {shot.epochs_done}/{shot.epochs_total} epochs{pace_words(shot)}, {trials} trials, "
        + (f"{len(shot.failures)} failed, " if shot.failures else "")
        + f"{shot.confirmed}/{shot.confirmations} confirmation runs"
        + (f"; best {', '.join(best)}" if best else "")
        + (f". {shot.away}" if shot.away else "")
    )


def follow(console: Console, folder: Path, fetch: Callable[[], None] = lambda: None) -> Snapshot:
    """Draw a study that another process runs until it ends or stops; returns the last look. It is only looked at.

    Args:
        fetch: called now and then to have its folder here as it is, where that is not on this machine.
    """
    shot, said, missed, fetched = snapshot(folder), float("-inf"), 0, time.monotonic()
    with Live(console=console, auto_refresh=False, transient=True) if console.is_terminal else nullcontext() as live:
        while shot.step not in ENDED:
            if live is not None:
                live.update(status_view(shot), refresh=True)
            elif time.monotonic() - said > LINE_PERIOD_S:
                said = time.monotonic()
                console.print(one_line(shot), highlight=False, soft_wrap=True)
            time.sleep(LOOK_PERIOD_S)
            try:
                if time.monotonic() > fetched + FETCH_PERIOD_S:
                    fetch()
                    fetched = time.monotonic()
                shot, missed = snapshot(folder), 0
            except Exception:  # a file or the database is being written at this moment
                missed += 1
                if missed > PATIENCE:
                    raise
    return shot


def progress_view(progress: Progress, spinner: Spinner) -> RenderableType:
    """What is being done, below the state of the study where epochs are in progress."""
    head = Table.grid(padding=(0, 1))
    head.add_row(spinner, f"{progress.doing} {progress.seconds:.0f} s", Text(progress.detail, style="dim"))
    return head if progress.shot is None else Group(status_view(progress.shot), head)


class Watch:
    """Draws a study's progress from a thread of its own while the main thread does it; ``publish`` takes it elsewhere, too."""

    def __init__(self, console: Console, folder: Path, publish: Publish | None = None) -> None:
        self.console, self.folder, self.publish = console, folder, publish
        self.doing = ""
        self.shot: Snapshot | None = None
        self._spinner = Spinner("dots")
        self._step_began, self._detail = time.monotonic(), ""
        self._over = threading.Event()
        self._live = Live(console=console, refresh_per_second=4, get_renderable=self._view, transient=True)
        self._thread = threading.Thread(target=self._loop, daemon=True)

    def __enter__(self) -> Watch:
        if self.console.is_terminal:
            self._live.start()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        if self.console.is_terminal:
            self._live.stop()
        if self.publish is not None:
            with suppress(Exception):  # a study that never began has no folder
                self.publish(Progress("", "", 0.0, snapshot(self.folder)))

    def step(self, name: str) -> None:
        now = time.monotonic()
        if self.doing:
            self.console.print(f"[green]✓[/] {self.doing} [dim]{now - self._step_began:.0f} s[/]")
        self._detail = ""
        self.doing, self._step_began = (SAYS[name] if name not in ("done", "stopped") else ""), now
        if self.doing and not self.console.is_terminal:
            self.console.print(f"{self.doing} ...")

    def progress(self, what: str, done: int, total: int) -> None:
        now = time.monotonic()
        rate = done / max(now - self._step_began, 1e-6)
        self._detail = f"{what}: {done}/{total}, {rate:.0f}/s"

    def note(self, sentence: str) -> None:
        self.console.print(f"[dim]{sentence}[/]", highlight=False)

    def trouble(self, sentence: str) -> None:
        self.console.print(f"[yellow]![/] {sentence}", highlight=False)

    def now(self) -> Progress:
        return Progress(self.doing, self._detail, time.monotonic() - self._step_began, self.shot)

    def _view(self) -> RenderableType:
        return progress_view(self.now(), self._spinner)

    def _loop(self) -> None:
        said = time.monotonic()
        while not self._over.wait(LOOK_PERIOD_S):
            looked = self._look()
            if self.publish is not None:
                self.publish(self.now())
            if looked and self.shot and not self.console.is_terminal and time.monotonic() - said > LINE_PERIOD_S:
                said = time.monotonic()
                self.console.print(one_line(self.shot), highlight=False, soft_wrap=True)

    def _look(self) -> bool:
        """False where there is nothing new to be seen."""
        if self.doing not in TRAINING:
            self.shot = None
            return False
        self._detail = ""
        try:
            self.shot = snapshot(self.folder)
        except Exception:
            return False  # a file or the database is being written at this moment; the next look finds it
        return True
