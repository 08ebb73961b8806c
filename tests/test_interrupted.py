"""A whole study's files under SIGKILL: at the end of every epoch, and at moments in between.

Ray is left out, so that a life of the study costs a second and it can be killed often: the registrar, the runs, MLflow and the
report are driven one after another in a process of their own. With Ray: tests/cluster/test_killing.py.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from marginlab.cluster.group import decider, run_one
from marginlab.cluster.registrar import Registrar
from marginlab.declaration import declare, load_study
from marginlab.plan import Plan
from marginlab.report import write_report
from marginlab.results import Results
from marginlab.runs import RunFolder
from marginlab.tracking import Tracker
from marginlab.workspace import Workspace
from tests.cluster import studies
from tests.cluster.driving import story, trained

SEED = 20221107  # of the random moments
KILLS = 10
_forks = multiprocessing.get_context("forkserver")
_forks.set_forkserver_preload(
    ["tests.test_interrupted", "torch._dynamo", "mlflow.store.tracking.sqlalchemy_store", "marginlab.report.html"]
)


def life(root: Path, home: Path, name: str, spec: str = "killed") -> None:
    """Do a study of tests/cluster/studies.py, or what is left of it: what ``run`` does, one thing after another."""
    os.environ["XDG_DATA_HOME"] = str(home)
    torch.set_num_threads(1)
    study, workspace = load_study(f"{Path(studies.__file__)}:{spec}"), Workspace.at(root)
    packed = workspace.prepare(study.datasets[0], lambda *_: None)
    plan = Plan(study, {"oai": packed.fingerprint}, ("oai",))
    folder = workspace.study(name)
    declare(folder, plan)
    ask: dict[str, Any] = {"session": f"{time.time_ns()}", "study": str(folder), "open_test": False}
    registrar = Registrar(str(folder), ask["session"])
    number = 0
    while not isinstance(ticket := registrar.ask(f"{ask['session']}/{number}"), str):
        path = Path(ticket["folders"][0])
        decide = lambda epoch, row, token=ticket["token"]: registrar.report(token, epoch, row["val/map"])  # noqa: E731
        result = run_one(path, packed.folder, decide, ask, torch.device("cpu"))
        assert result is not None
        registrar.tell(ticket["token"], result["state"], result["reason"])
        number += 1
    assert registrar.over()
    (key, params), *_ = registrar.winners()
    for task in plan.confirmations(key, params or {}):
        path = RunFolder.create(folder / task.folder, task.run, task.labels).path
        run_one(path, packed.folder, decider({}, 0), {**ask, "open_test": True}, torch.device("cpu"))
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


@pytest.fixture(scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    root = tmp_path_factory.mktemp("quiet")
    lives(root, root, "quiet", never)
    began = time.monotonic()
    lives(root, root, "again", never)  # prepared and imported: how long a life takes
    folder = root / "studies" / "quiet"
    return {"root": root, "seconds": time.monotonic() - began, "epochs": trained(folder), "story": story(folder)}


def test_killed_at_the_end_of_every_epoch(quiet: Any) -> None:
    folder = quiet["root"] / "studies" / "epochs"
    for epochs in range(1, quiet["epochs"] + 1):
        assert lives(quiet["root"], quiet["root"], "epochs", lambda: trained(folder) >= epochs)  # noqa: B023
    assert not lives(quiet["root"], quiet["root"], "epochs", never)
    assert story(folder) == quiet["story"]


def test_killed_at_random_moments(quiet: Any) -> None:
    rng, killed, studied = random.Random(SEED), 0, 0
    while killed < KILLS:
        name = f"random-{studied}"
        moment = time.monotonic() + rng.uniform(0.02, 0.5) * quiet["seconds"]
        if lives(quiet["root"], quiet["root"], name, lambda: time.monotonic() > moment):  # noqa: B023
            killed += 1
        else:  # it came to its end; the next kill is another study's
            assert story(quiet["root"] / "studies" / name) == quiet["story"]
            studied += 1
    lives(quiet["root"], quiet["root"], name, never)
    assert story(quiet["root"] / "studies" / name) == quiet["story"]


def test_killed_while_it_prepares(quiet: Any, tmp_path: Path) -> None:
    rng = random.Random(SEED)
    for _ in range(KILLS):
        moment = time.monotonic() + rng.uniform(0.0, 0.6)
        if not lives(tmp_path, tmp_path, "quiet", lambda: time.monotonic() > moment):  # noqa: B023
            break
    lives(tmp_path, tmp_path, "quiet", never)
    assert story(tmp_path / "studies" / "quiet") == quiet["story"]
    assert not [p for p in (tmp_path / "data").iterdir() if "partial" in p.name]


def test_trials_that_raise_give_nan_or_run_out_of_memory_are_failed_with_their_reason(quiet: Any) -> None:
    lives(quiet["root"], quiet["root"], "faulty", never, "faulty")
    search = Results.open(quiet["root"] / "studies" / "faulty").searches["oai/faulty/r0"]
    assert (search["complete"], search["failed"], search["epochs"]) == (1, 3, 4)
    raised, nan, memory = search["failures"].values()
    assert raised == "ValueError: a fault of the loss"
    assert nan.startswith("The loss was nan in epoch 1: try a lower learning rate")
    assert "RuntimeError" in memory and "allocate" in memory
