"""The command itself: Ctrl-C, twice Ctrl-C and the end of a whole process tree, on a Ray that it started."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from marginlab import stopping
from marginlab.files import read_lines
from marginlab.values import InputError
from tests.cluster import studies
from tests.cluster.driving import run_here, trained

ROOT = Path(__file__).parents[2]
LIMIT_S = 300


def begin(workspace: Path, home: Path) -> subprocess.Popen[str]:
    """``marginlab run`` as a process group of its own, as a terminal would start it."""
    env = {**os.environ, "XDG_DATA_HOME": str(home), "PYTHONPATH": f"{ROOT / 'platform'}{os.pathsep}{ROOT}"}
    env.pop("RAY_ADDRESS", None)
    argv = [sys.executable, "-m", "marginlab.cli", "run", str(ROOT / "tests" / "cluster" / "studies.py") + ":killed"]
    argv += ["--workspace", str(workspace), "--cpus", "2"]
    return subprocess.Popen(
        argv, cwd=ROOT, env=env, start_new_session=True, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def wait(process: subprocess.Popen[str], until: Callable[[], Any]) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not until():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.02)


def group(process: subprocess.Popen[str]) -> list[int]:
    """The processes of its group that are there."""
    found = []
    for place in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            fields = place.read_text().rpartition(")")[2].split()
            if int(fields[2]) == process.pid and fields[0] != "Z":
                found.append(int(place.parent.name))
    return found


@pytest.mark.kills
def test_ctrl_c_and_the_end_of_the_process_tree(home: Path) -> None:
    workspace = home / "stopped"
    folder = workspace / "studies" / "killed"
    process = begin(workspace, home)
    wait(process, lambda: (folder / "study.json").exists())
    with pytest.raises(
        InputError, match=rf"already held by process {process.pid} on .* \(marginlab status killed --follow\)"
    ):
        run_here(studies.killed, workspace)
    wait(process, lambda: trained(folder) >= 1)
    os.killpg(process.pid, signal.SIGINT)  # a terminal sends it to the whole group
    said = process.communicate(timeout=LIMIT_S)[0]
    assert process.returncode == 130, said
    assert "the epochs in progress end first" in said and "carries on; marginlab status killed" in said
    before = trained(folder)
    assert stopping.asked(folder) and before < 9

    process = begin(workspace, home)
    wait(process, lambda: trained(folder) > before)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + 20
    while group(process):
        assert time.monotonic() < deadline, "Ray outlives its driver"
        time.sleep(0.1)
    rows = [read_lines(p) for p in folder.glob("runs/*/*/*/trial-*/epochs.jsonl")]
    assert all([r["epoch"] for r in run] == list(range(len(run))) for run in rows)  # nothing was trained twice
