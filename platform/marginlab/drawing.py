"""What a terminal shows while a study runs: a live table where there is a terminal, a line now and then where not."""

from __future__ import annotations

import threading
import time
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from marginlab.watching import Snapshot, snapshot

SAYS = {
    "phantoms": "rendering phantoms",
    "prepare": "preparing datasets",
    "ray": "starting Ray",
    "search": "searching",
    "confirmation": "confirming the winners on fresh seeds",
    "tracking": "recording in MLflow",
    "report": "writing the report",
    "done": "done",
    "stopped": "stopped",
}
LOOK_PERIOD_S = 2.0  # between looks at the study's folder
LINE_PERIOD_S = 10.0  # between lines where the output is no terminal


def status_view(shot: Snapshot, remaining: str = "") -> RenderableType:
    """The state of a study: a row per search, confirmation, what is at work, what failed."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for header, justify in (
        ("search", "left"),
        ("epochs", "left"),
        ("", "right"),
        ("trials", "right"),
        ("pruned", "right"),
        ("failed", "right"),
        ("best", "right"),
    ):
        table.add_column(header, justify=justify)  # type: ignore[arg-type]
    for key, s in shot.searches.items():
        over = shot.step not in ("search", "stopped", "ray")
        total = s["epochs"] if over else s["budget"]
        table.add_row(
            key.removesuffix("/r0"),
            ProgressBar(total=max(total, 1), completed=s["epochs"], width=20),
            f"{s['epochs']}/{s['budget']}",
            str(s["trials"]),
            str(s["pruned"]),
            Text(str(s["failed"]), style="red" if s["failed"] else ""),
            "" if s["best"] is None else f"{s['best']:.3f}",
        )
    table.add_row(
        "confirmation",
        ProgressBar(total=shot.confirmations, completed=shot.confirmed, width=20),
        f"{shot.confirmed}/{shot.confirmations}",
        "runs",
    )
    lines: list[RenderableType] = [table]
    lines += [Text(f"  {line}", style="dim") for line in shot.training[:6]]
    lines += [Text(f"  failed: {line}", style="red") for line in shot.failures[:6]]
    total = f"{shot.epochs_done} of {shot.epochs_total} epochs"
    lines.append(Text(f"{SAYS.get(shot.step, shot.step)}: {total}{remaining}", style="bold"))
    return Group(*lines)


def one_line(shot: Snapshot) -> str:
    best = [f"{k.removesuffix('/r0')} {s['best']:.3f}" for k, s in shot.searches.items() if s["best"] is not None]
    trials = sum(s["trials"] for s in shot.searches.values())
    return (
        f"{SAYS.get(shot.step, shot.step)}: {shot.epochs_done}/{shot.epochs_total} epochs, {trials} trials, "
        f"{shot.confirmed}/{shot.confirmations} confirmation runs" + (f"; best {', '.join(best)}" if best else "")
    )


class Watch:
    """Draws a study's progress from a thread of its own while the main thread does it."""

    def __init__(self, console: Console, folder: Path) -> None:
        self.console, self.folder = console, folder
        self.doing = ""
        self.shot: Snapshot | None = None
        self._spinner = Spinner("dots")
        self._step_began, self._detail = time.monotonic(), ""
        self._began: tuple[float, int] | None = None  # when epochs began, and how many there were
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

    def trouble(self, sentence: str) -> None:
        self.console.print(f"[yellow]![/] {sentence}", highlight=False)

    def _view(self) -> RenderableType:
        head = Table.grid(padding=(0, 1))
        elapsed = time.monotonic() - self._step_began
        head.add_row(self._spinner, f"{self.doing} {elapsed:.0f} s", Text(self._detail, style="dim"))
        if self.shot is None:
            return head
        return Group(status_view(self.shot, self._remaining(self.shot)), head)

    def _remaining(self, shot: Snapshot) -> str:
        """Time left at the pace of this session."""
        if self._began is None:
            return ""
        elapsed, done = time.monotonic() - self._began[0], shot.epochs_done - self._began[1]
        if done < 4:
            return ", measuring the pace"
        left = (shot.epochs_total - shot.epochs_done) * elapsed / done
        return f", about {left / 60:.0f} min left" if left > 90 else f", about {left:.0f} s left"

    def _loop(self) -> None:
        said = time.monotonic()
        while not self._over.wait(LOOK_PERIOD_S):
            if self.doing not in (SAYS["search"], SAYS["confirmation"]):
                self.shot = None
                continue
            self._detail = ""
            try:
                self.shot = snapshot(self.folder)
            except Exception:
                continue  # a file or the database is being written at this moment; the next look finds it
            if self._began is None:
                self._began = (time.monotonic(), self.shot.epochs_done)
            if not self.console.is_terminal and time.monotonic() - said > LINE_PERIOD_S:
                said = time.monotonic()
                self.console.print(one_line(self.shot) + self._remaining(self.shot), highlight=False)
