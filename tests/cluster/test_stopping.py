"""Stopped with Ctrl-C, then killed outright, then run to its end: the study equals one that was left alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import optuna

from marginlab.files import read_lines
from marginlab.runs import RunFolder
from tests.tiny import timeless

ROOT = Path(__file__).parents[2]
LIMIT_S = 400


def begin(workspace: Path, home: Path) -> subprocess.Popen[str]:
    """``marginlab run`` as a process group of its own."""
    env = {**os.environ, "XDG_DATA_HOME": str(home), "PYTHONPATH": f"{ROOT / 'platform'}{os.pathsep}{ROOT}"}
    argv = [sys.executable, "-m", "marginlab.cli", "run", str(ROOT / "tests" / "cluster" / "studies.py") + ":stopping"]
    argv += ["--workspace", str(workspace), "--cpus", "2"]
    return subprocess.Popen(
        argv, cwd=ROOT, env=env, start_new_session=True, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def trained(workspace: Path) -> int:
    """Epochs of all trials so far."""
    rows = (read_lines(p) for p in workspace.glob("studies/stopping/runs/**/trial-*/epochs.jsonl"))
    return sum(sum(r["epoch"] > 0 for r in found) for found in rows)


def wait_for(process: subprocess.Popen[str], workspace: Path, epochs: int) -> None:
    deadline = time.monotonic() + LIMIT_S
    while trained(workspace) < epochs:
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.05)


def finished(process: subprocess.Popen[str]) -> tuple[int, str]:
    said = process.communicate(timeout=LIMIT_S)[0]
    return process.returncode, said


def story(workspace: Path) -> tuple[Any, Any]:
    """All that a study found: its trials, and every run's rows and result without the clock."""
    folder = workspace / "studies" / "stopping"
    storage = optuna.storages.get_storage(f"sqlite:///{folder / 'optuna.db'}")
    trials = [
        (s.study_name, t.number, t.state, t.value, t.params, t.intermediate_values)
        for s in storage.get_all_studies()
        for t in storage.get_all_trials(s._study_id)
    ]
    runs = {}
    for path in sorted(folder.glob("runs/**/run.json")):
        run = RunFolder.open(path.parent)
        result = {k: v for k, v in (run.result() or {}).items() if k != "time"}
        weights = (path.parent / "best.safetensors").read_bytes()
        runs[str(path.parent.relative_to(folder))] = ([timeless(r) for r in run.epochs()], result, weights)
    return trials, runs


def test_an_interrupted_study_ends_as_an_undisturbed_one(tmp_path: Path) -> None:
    home, disturbed, quiet = tmp_path / "home", tmp_path / "disturbed", tmp_path / "quiet"
    process = begin(disturbed, home)
    wait_for(process, disturbed, 2)
    os.kill(process.pid, signal.SIGINT)
    code, said = finished(process)
    assert code == 130 and "the same command carries on" in said, said
    assert not list(disturbed.glob("studies/stopping/runs/**/confirmation-*"))  # the test split stays closed

    before = trained(disturbed)
    process = begin(disturbed, home)
    wait_for(process, disturbed, before + 5)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    time.sleep(4)  # Ray's processes notice that their driver is gone

    code, said = finished(begin(disturbed, home))
    assert code == 0, said
    code, said = finished(begin(quiet, home))
    assert code == 0, said
    assert story(disturbed) == story(quiet)
