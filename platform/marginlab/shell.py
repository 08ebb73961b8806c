"""What the commands share: where they write, the options they have in common, a progress bar, and how they end."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

console = Console(width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else 110)
errors = Console(stderr=True, soft_wrap=True)

WorkspaceOption = Annotated[
    str, typer.Option("--workspace", "-w", help="The folder that all of your output lives in; or s3://BUCKET/PREFIX.")
]
HERE = "workspace"
TRACKING = "MARGINLAB_TRACKING_URI"  # beside MARGINLAB_STUDY_DATABASE in a cluster's secrets.env: whoever runs a job need not name it


def say_next(what: str) -> None:
    """How every command ends: what to do now."""
    console.print(f"[dim]Next:[/] {what}", highlight=False, soft_wrap=True)


class Bar:
    """A progress bar for a command's one long step: called with (what, done, total)."""

    def __init__(self, title: str) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self.progress = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=console
        )
        self.title = title
        self.task = self.progress.add_task(title, total=None)

    def __enter__(self) -> Bar:
        self.progress.start()
        return self

    def __call__(self, what: str, done: int, total: int) -> None:
        said = what if what.startswith("waiting") else self.title
        self.progress.update(self.task, completed=done, total=total, description=escape(said))

    def at(self, done: int, total: int) -> None:
        self("", done, total)

    def __exit__(self, *_: object) -> None:
        self.progress.stop()
