"""Confirmation: the runs on fresh seeds, dealt to as many worker groups as the cluster can hold."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from marginlab.cluster.group import train_group
from marginlab.cluster.machines import Machines
from marginlab.cluster.preflight import concurrency, gpus_per_worker
from marginlab.plan import Task
from marginlab.runs import RunFolder
from marginlab.study import Confirmation


def confirm(
    rules: Confirmation,
    tasks: list[Task],
    study_folder: Path,
    packed: dict[str, str],
    storage: Path,
    machines: Machines,
    session: str,
) -> None:
    """Train all runs, open the test split for those that may, and return when all have ended or the study was asked to stop.

    Confirmation always uses Ray Train. A worker group takes a list of runs, so that its start is paid once.
    """
    folders = [RunFolder.create(study_folder / t.folder, t.run, t.labels) for t in tasks]
    todo = [str(f.path) for f in folders if f.result() is None]
    groups = min(concurrency("Confirmation", rules.resources, machines), len(todo))
    gpus = gpus_per_worker(rules.resources, machines)
    ask = {"session": session, "study": str(study_folder)}
    train = partial(train_group, packed=packed, resources=rules.resources, gpus=gpus, storage=storage, ask=ask)
    pool = ThreadPoolExecutor(max(groups, 1))
    try:
        for end in [pool.submit(train, todo[i::groups]) for i in range(groups)]:
            end.result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)  # a Ctrl-C does not wait for the groups; Ray's end ends them
