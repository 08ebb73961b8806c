"""A study's driver as a process that can be killed, with or without its workers, at any moment.

Drivers are forked from a process that has imported everything, so that a start costs a second and not ten.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import ray

from marginlab import study_database
from marginlab.files import read_json, read_lines
from marginlab.running import Outcome, run_study
from marginlab.runs import RunFolder
from marginlab.study import Study
from marginlab.workspace import Workspace
from tests.cluster import studies
from tests.tiny import timeless

LIMIT_S = 300.0

_forks = multiprocessing.get_context("forkserver")
_forks.set_forkserver_preload(["tests.cluster.driving", "ray.tune", "ray.train", "marginlab.report"])


def _drive(study: str, workspace: Path, home: Path, address: str) -> None:
    with (workspace.with_suffix(".log")).open("a") as log:
        os.dup2(log.fileno(), sys.stdout.fileno())
        os.dup2(log.fileno(), sys.stderr.fileno())
    os.environ["XDG_DATA_HOME"] = str(home)
    run_study(
        getattr(studies, study),
        Workspace.at(workspace),
        on_step=lambda s: print(s, flush=True),
        progress=lambda *_: None,
        on_trouble=lambda s: print(s, flush=True),
        address=address,
    )


def run_here(study: Study, workspace: Path | str) -> Outcome:
    """``run`` in this process, without a word."""

    def nothing(*_: Any) -> None:
        pass

    return run_study(study, Workspace.at(workspace), on_step=nothing, progress=nothing, on_trouble=nothing)


class Driver:
    """One ``run`` of a study on the Ray that is here."""

    def __init__(self, study: str, workspace: Path, home: Path) -> None:
        self.folder = workspace / "studies" / getattr(studies, study).name
        self.log = workspace.with_suffix(".log")
        self._others = set(ray_processes())
        address = ray.get_runtime_context().gcs_address
        self.process = _forks.Process(target=_drive, args=(study, workspace, home, address))
        self.process.start()

    def until(self, what: Callable[[], Any]) -> bool:
        """Wait for something; False if the study ended before."""
        deadline = time.monotonic() + LIMIT_S
        while not what():
            if not self.process.is_alive():
                return False
            assert time.monotonic() < deadline, self.log.read_text()[-3000:]
            time.sleep(0.01)
        return True

    def workers(self, title: str = "ray::") -> dict[int, str]:
        """Ray's processes for this study, by process id."""
        return {pid: name for pid, name in ray_processes().items() if pid not in self._others and title in name}

    def kill(self) -> None:
        """The driver and all its workers, outright."""
        workers = self.workers()
        for pid in [self.process.pid, *workers]:
            with suppress(ProcessLookupError):
                os.kill(int(pid or 0), signal.SIGKILL)
        self.process.join()

    def end(self) -> None:
        """Wait for the study's end, which must be a good one."""
        self.process.join(LIMIT_S)
        assert self.process.exitcode == 0, self.log.read_text()[-3000:]


def ray_processes() -> dict[int, str]:
    """Titles of Ray's workers and actors, but for those of hosts that are network namespaces (tests/hosts)."""
    found = {}
    here = os.stat("/proc/self/ns/net").st_ino
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if place.with_name("ns").joinpath("net").stat().st_ino != here:
                continue
            title = place.read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
            if title.startswith("ray::"):
                found[int(place.parent.name)] = title
    return found


def trained(folder: Path, kind: str = "*") -> int:
    """Epochs of training in the run folders of a study (``kind``: ``trial``, ``confirmation`` or all)."""
    rows = [read_lines(p) for p in folder.glob(f"runs/*/*/*/{kind}-*/epochs.jsonl")]
    return sum(sum(r["epoch"] > 0 for r in found) for found in rows)


def step(folder: Path) -> str:
    path = folder / "status.json"
    return str(read_json(path)["step"]) if path.exists() else ""


def story(folder: Path) -> dict[str, Any]:
    """All that a study found: its trials, every run's rows, result and weights without the clock, and the final table."""
    with study_database.of(folder).reading() as storage:
        assert storage is not None
        trials = [
            (s.study_name, t.number, t.state, t.value, t.params, t.intermediate_values, t.user_attrs["modelled"])
            for s in storage.get_all_studies()
            for t in storage.get_all_trials(s._study_id)
        ]
    runs: dict[str, Any] = {}
    for path in sorted(folder.glob("runs/**/run.json")):
        run = RunFolder.open(path.parent)
        result = {k: v for k, v in (run.result() or {}).items() if k != "time"}
        files = sorted(p for p in path.parent.rglob("*") if p.suffix in (".safetensors", ".parquet"))
        whole = {p.name: p.read_bytes() for p in files if p.name != "last.safetensors"}  # its note has the clock
        tensors = {k: v.tolist() for k, v in (run.checkpoint() or {}).items()}
        runs[str(path.parent.relative_to(folder))] = ([timeless(r) for r in run.epochs()], result, whole, tensors)
    return {"trials": trials, "runs": runs, "table": (folder / "report" / "tables" / "headline.csv").read_text()}
