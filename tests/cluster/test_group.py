"""A worker group that does not come to train: it is begun anew, and the study says why."""

from __future__ import annotations

import errno
import os
import signal
import socket
import threading
import time
from contextlib import nullcontext, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from ray.exceptions import ActorDiedError, RayTaskError
from ray.train.v2.api.exceptions import ControllerError, WorkerGroupError

from marginlab import faults, files, stopping
from marginlab.cluster import group, overseer, reaper
from marginlab.runs import ATTEMPTS, Recorder, RunFolder
from marginlab.study import Resources
from tests.cluster.driving import ray_processes
from tests.tiny import tiny_run

DIED = ControllerError(ActorDiedError())  # of a worker, as the group's training begins
FAILED = ControllerError(RayTaskError("on_start", "no such backend\nRuntimeError: no such backend", RuntimeError("x")))


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """With one run, which has ended: a group has nothing to do but to begin."""
    Recorder(RunFolder.create(tmp_path / "run", tiny_run(), {"kind": "trial"})).finish("failed", "It is not trained.")
    return tmp_path


def train(study: Path, **resources: Any) -> None:
    ask = {"session": "s", "study": str(study)}
    packed = {tiny_run().dataset: str(study / "packed")}
    group.train_group([str(study / "run")], packed, Resources(**{"workers": 2} | resources), 0.0, study / "ray", ask)


def begun(study: Path, monkeypatch: pytest.MonkeyPatch, *ends: Exception) -> int:
    """How often a group is begun that ends so, and then well."""
    times = 0

    def end(*_: Any) -> None:
        nonlocal times
        times += 1
        if times <= len(ends):
            raise ends[times - 1]

    monkeypatch.setattr(group, "_train_group", end)
    monkeypatch.setattr(group.ray, "is_initialized", lambda: True)
    train(study)
    return times


def test_a_worker_or_controller_that_dies_as_the_group_starts_costs_a_start(
    study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends = [DIED, ActorDiedError(), FAILED, *[DIED] * ATTEMPTS]
    assert begun(study, monkeypatch, *ends) == len(ends) + 1
    said = [f.what for f in faults.read(study)]
    assert said[1] == "A worker group lost its controller: it was begun anew."
    assert said[2] == "A worker group could not start (RuntimeError: no such backend): it was begun anew."


def test_what_every_start_fails_with_ends_it(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ControllerError, match="no such backend"):
        begun(study, monkeypatch, *[FAILED] * (ATTEMPTS + 1))
    assert len(faults.read(study)) == ATTEMPTS


def test_what_ray_train_has_given_up_is_not_begun_anew(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(WorkerGroupError):
        begun(study, monkeypatch, WorkerGroupError("rank 0", {0: RuntimeError("x")}))
    assert faults.read(study) == []


def test_a_stop_does_not_wait_for_a_place(ray_here: None, study: Path) -> None:
    stopping.ask(study)
    train(study, cpus=1000.0)
    assert faults.read(study) == []


@pytest.mark.timeout(240)
def test_a_disk_that_stays_full_ends_the_group_and_no_run(
    ray_here: None, study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def work(config: dict[str, Any]) -> None:  # nested: it is sent to the worker as it is
        def write() -> None:
            raise OSError(errno.ENOSPC, "No space left on device", "/mnt/x")

        files.PATIENCE_S = 0.5
        files.patiently(write)

    monkeypatch.setattr(group, "_watched", work)
    with pytest.raises(ControllerError, match="Rank 0 on .*: .*No space left on device: '/mnt/x'"):
        train(study, workers=1)


@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_whose_process_group_is_gone_does_not_take_itself_for_the_only_one(
    rank: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray Train destroys it as soon as another worker is lost, also before this one begins to train."""
    context = SimpleNamespace(get_world_rank=lambda: rank, get_world_size=lambda: 2)
    monkeypatch.setattr(group, "get_context", lambda: context)
    monkeypatch.setattr(group, "watched", lambda config: nullcontext())  # begun, and then it was destroyed
    monkeypatch.setattr(group, "nodes_of_group", lambda: ["a", "b"])
    monkeypatch.setattr(group, "looking", lambda nodes: nullcontext(lambda: False))
    monkeypatch.setattr(group, "get_device", lambda: torch.device("cpu"))
    path = tmp_path / "run"
    folder = RunFolder.create(path, tiny_run(), {"kind": "trial"})
    packed = {tiny_run().dataset: str(tmp_path / "packed")}
    with pytest.raises(ValueError, match="process group has not been initialized"):
        group._watched({"folders": [str(path)], "packed": packed, "session": "s", "study": str(tmp_path)})
    assert folder.result() is None and not folder.epochs()


@pytest.mark.timeout(240)
def test_a_worker_that_is_stopped_as_the_group_starts_is_not_waited_for(
    ray_here: None, study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(overseer, "START_S", 0.0)
    before, stopped = set(ray_processes()), []

    def stop() -> None:
        while not stopped:
            time.sleep(0.01)
            new = [p for p, title in ray_processes().items() if p not in before and "RayTrainWorker" in title]
            for pid in new[:1]:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGSTOP)
                    stopped.append(pid)

    monkeypatch.setattr(overseer, "PROCESSES_S", 30.0)
    thread = threading.Thread(target=stop)
    thread.start()
    monkeypatch.setattr(reaper, "LOOK_S", 1.0)
    monkeypatch.setattr(reaper, "EMPTY_S", 3.0)
    # Ray keeps the place of a group whose controller is gone.
    with reaper.reaping(reaper.there(), lambda sentence: None):
        train(study, stalled_s=2.0)
    thread.join()
    what = [f.what for f in faults.read(study)]
    assert what == [
        "A worker group did not begin within 32 s: a process is stopped, or a host cut off.",
        "A worker group lost its controller: it was begun anew.",
    ]
    assert not Path(f"/proc/{stopped[0]}").exists()


@pytest.mark.timeout(240)
def test_a_lone_worker_that_is_stopped_is_given_up(
    ray_here: None, study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(overseer, "LATER_S", 3.0)
    pid = study / "pid"

    def work(config: dict[str, Any]) -> None:  # nested: it is sent to the worker as it is
        if not pid.exists():
            pid.write_text(str(os.getpid()))
            time.sleep(600)

    def stop() -> None:
        while not (pid.exists() and pid.read_text()):
            time.sleep(0.1)
        os.kill(int(pid.read_text()), signal.SIGSTOP)

    monkeypatch.setattr(group, "_watched", work)
    thread = threading.Thread(target=stop, daemon=True)
    thread.start()
    train(study, workers=1, stalled_s=2.0)
    thread.join()
    (fault,) = faults.read(study)
    said = "was not heard from for 5 s: its process is stopped, or its host cut off."
    assert fault.what == f"Rank 0 on {socket.gethostname()} {said}"
    assert not Path(f"/proc/{pid.read_text()}").exists()
