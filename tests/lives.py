"""A study done without Ray, in a process that can be killed: the registrar, the runs, MLflow and the report, one after another.

Lives are forked from a process that has imported everything, so that one costs a second.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from marginlab.cluster.group import decider, run_one
from marginlab.cluster.registrar import Registrar
from marginlab.declaration import declare, load_study
from marginlab.files import sweep
from marginlab.fresh import Fresh
from marginlab.plan import Plan
from marginlab.report import write_report
from marginlab.results import Results
from marginlab.runs import RunFolder
from marginlab.tracking import Tracker
from marginlab.workspace import Workspace
from tests.cluster import studies

_forks = multiprocessing.get_context("forkserver")
_forks.set_forkserver_preload(
    ["tests.lives", "torch._dynamo", "mlflow.store.tracking.sqlalchemy_store", "marginlab.report.html"]
)


def life(root: Path, home: Path, name: str, spec: str = "killed") -> None:
    """Do a study of tests/cluster/studies.py, or what is left of it: what ``run`` does, one thing after another."""
    os.environ["XDG_DATA_HOME"] = str(home)
    torch.set_num_threads(1)
    study, workspace = load_study(f"{Path(studies.__file__)}:{spec}"), Workspace.at(root)
    packed = workspace.prepare(study.datasets[0], lambda *_: None)
    plan = Plan(study, {"oai": packed.fingerprint}, ("oai",))
    folder, there = workspace.study(name), {"oai": str(packed.folder)}
    declare(folder, plan)
    ask: dict[str, Any] = {"session": f"{time.time_ns()}", "study": str(folder)}
    registrar = Registrar(str(folder), ask["session"])
    number = 0
    while not isinstance(ticket := registrar.ask(f"{ask['session']}/{number}"), str):
        path = Path(ticket["folders"][0])
        decide = lambda epoch, row, token=ticket["token"]: registrar.report(token, epoch, row["val/map"])  # noqa: E731
        result = run_one(path, there, decide, ask, torch.device("cpu"))
        assert result is not None
        registrar.tell(ticket["token"], result["state"], result["reason"])
        number += 1
    assert registrar.over()
    for task in Fresh.of(plan, registrar.found()).tasks():
        path = RunFolder.create(folder / task.folder, task.run, task.labels).path
        run_one(path, there, decider({}, 0), ask, torch.device("cpu"))
    sweep(folder / "runs")
    Tracker(root, folder).sync()
    write_report(Results.open(folder), folder / "report", None)


def lives(root: Path, home: Path, name: str, until: Callable[[], bool], spec: str = "killed") -> bool:
    """One life of the study, killed when ``until`` says so; whether it was."""
    process = _forks.Process(target=life, args=(root, home, name, spec))
    process.start()
    while process.is_alive():
        if until():
            os.kill(process.pid or 0, signal.SIGKILL)
            process.join()
            return True
        time.sleep(0.002)
    assert process.exitcode == 0
    return False


def never() -> bool:
    return False
