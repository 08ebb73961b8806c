"""Folders: brought up to date with what others sent, kept from being so, renamed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from marginlab.bucket.objects import files, get, hidden, in_order, in_step
from marginlab.bucket.place import key_of, told
from marginlab.lock import Held, locked

_LOCK = ".here.lock"  # of a folder that somebody on this machine is at work in
_WAIT_S = 30.0  # for that lock: who holds it longer stands still, and is about to be killed


def fetch(folder: Path, wanted: Callable[[str], bool] = lambda name: True, *, exact: bool = False) -> None:
    """Bring this machine's files of a folder up to date.

    Args:
        wanted: of a name relative to the folder; others are left as they are.
        exact: files that nobody has sent are removed. Only where nobody on this machine writes them.
    """
    key = key_of(folder)
    if key is None:
        return
    with told(key) as fs:
        found = {name: info for name, info in files(fs, key).items() if wanted(name)}
        if exact:
            for path in [p for p in folder.rglob("*") if p.is_file()]:
                name = path.relative_to(folder).as_posix()
                if name not in found and wanted(name) and not hidden(name):
                    path.unlink(missing_ok=True)
        for name in in_order(found):
            if not in_step(folder / name, found[name]):
                get(fs, f"{key}/{name}", folder / name)


def fetch_runs(folder: Path, heavy: tuple[str, ...]) -> None:
    """Bring the run folders below one up to date, less those that somebody on this machine is at work in.

    Args:
        heavy: names of files that only who trains needs. Of a run that has not ended, its rows alone are fetched.
    """
    key = key_of(folder)
    if key is None:
        return
    with told(key) as fs:
        listed = files(fs, key)
        late = {n: i for n, i in listed.items() if not in_step(folder / n, i) and n.rpartition("/")[2] not in heavy}
        for run in sorted({_run_of(name, listed) for name in late}):
            ended = f"{run}/result.json" in late
            # What a list of several pages shows of a run that ends meanwhile may be older than its result.
            now = (
                files(fs, f"{key}/{run}")
                if ended
                else {n[len(run) + 1 :]: i for n, i in late.items() if n.startswith(f"{run}/")}
            )
            try:
                with locked(folder / run / _LOCK):
                    for name in in_order(now):
                        asked_for = name not in heavy and (ended or name.endswith((".json", ".jsonl")))
                        if asked_for and not in_step(folder / run / name, now[name]):
                            get(fs, f"{key}/{run}/{name}", folder / run / name, final=ended)
            except Held:
                continue


def _run_of(name: str, listed: dict[str, Any]) -> str:
    """The folder of the run that a file belongs to; of one that belongs to none, the folder that it is in."""
    parts = name.split("/")[:-1]
    runs = ("/".join(parts[:i]) for i in range(len(parts), 0, -1))
    return next((r for r in runs if f"{r}/run.json" in listed), "/".join(parts) or ".")


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """For the length of the block nobody else on this machine fetches a folder: this process writes to it."""
    if key_of(folder) is None:
        yield
        return
    until = time.monotonic() + _WAIT_S
    with ExitStack() as stack:
        while True:
            try:
                stack.enter_context(locked(folder / _LOCK))
                break
            except Held:
                if time.monotonic() > until:
                    break
                time.sleep(0.2)
        yield


def move(old: Path, new: Path) -> None:
    """What was sent of a folder gets another name, file by file. Interrupted, a part has the new name and a part the old one."""
    before, after = key_of(old), key_of(new)
    if before is None or after is None:
        return
    with told(before) as fs:
        for name in files(fs, before):
            fs.copy_file(f"{before}/{name}", f"{after}/{name}")
            fs.delete_file(f"{before}/{name}")
