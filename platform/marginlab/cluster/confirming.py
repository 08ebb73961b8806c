"""Confirmation: the runs on fresh seeds, dealt to as many worker groups as the cluster can hold."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayActorError

from marginlab import faults
from marginlab.cluster.group import restarts, train_group
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
    train = partial(_train, packed=packed, resources=rules.resources, gpus=gpus, storage=storage, ask=ask)
    pool = ThreadPoolExecutor(max(groups, 1))
    try:
        for end in [pool.submit(train, todo[i::groups]) for i in range(groups)]:
            end.result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)  # a Ctrl-C does not wait for the groups; Ray's end ends them


def _train(folders: list[str], *, ask: dict[str, Any], **group: Any) -> None:
    """``train_group``, begun anew where the process that directs the group has died: nobody else does it, as Tune does for a trial."""
    for left in reversed(range(restarts(folders))):
        try:
            return train_group(folders, ask=ask, **group)
        except RayActorError:
            if not left or not ray.is_initialized():  # the study's own end, which ends the groups
                raise
        faults.note(Path(ask["study"]), "The controller of a worker group died: the group was begun anew.")
