"""A study's searches and their confirmation, on a Ray that is there."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path

from marginlab import bucket, faults, stopping
from marginlab.cluster.machines import Machines
from marginlab.files import patiently, sweep
from marginlab.fresh import Fresh
from marginlab.plan import Plan
from marginlab.runs import HEAVY, RunFolder
from marginlab.stopping import Stopped
from marginlab.values import InputError

Step = Callable[[str], None]  # called with the name of each step that begins


def conduct(plan: Plan, folder: Path, packed: dict[str, str], machines: Machines, step: Step) -> None:
    """Search and confirm. What has been done before is not done again.

    Raises:
        Stopped: the study was asked to stop, and what was in progress has come to the end of its epoch.
        InputError: it cannot go on, and why.

    Args:
        folder: the study's folder, declared.
        packed: packed dataset folder by dataset name.
        machines: what the cluster has, checked by ``preflight``.
    """
    from optuna.exceptions import StorageInternalError
    from ray.exceptions import RayError
    from ray.train.v2.api.exceptions import TrainingFailedError

    from marginlab.cluster.registrar import cannot_go_on

    try:
        _conduct(plan, folder, packed, machines, step)
    except (RayError, TrainingFailedError, StorageInternalError, bucket.Away) as e:
        last = (str(e).strip().splitlines() or [type(e).__name__])[-1]
        raise InputError(cannot_go_on(last)) from e


def _conduct(plan: Plan, folder: Path, packed: dict[str, str], machines: Machines, step: Step) -> None:
    import ray

    from marginlab.cluster import registrar, storage
    from marginlab.cluster.confirming import confirm
    from marginlab.cluster.preflight import launcher
    from marginlab.cluster.reaper import end_cleaners, reaping, there
    from marginlab.cluster.searching import search

    session = f"{int(time.time())}-{uuid.uuid4().hex[:6]}"
    name = f"registrar-{plan.study.name}-{session}"
    ray_folder = folder / "ray"
    say, theirs = partial(faults.note, folder), there()
    fetch = partial(bucket.fetch_runs, folder / "runs", HEAVY)
    actor = registrar.start(folder, name, session)
    ray.get(actor.over.remote())  # it has made the database before anybody looks into it
    step("search")
    most = len(plan.searches()) * plan.study.search.epochs_budget
    nested = launcher(plan.study.search.resources, machines) == "train"
    with reaping(theirs, say) if nested else nullcontext():
        search(plan.study.search, folder, actor, name, session, packed, ray_folder, machines, most)
    if stopping.asked(folder):
        raise Stopped
    if trouble := ray.get(actor.trouble.remote()):
        raise InputError(trouble)
    if not ray.get(actor.over.remote()):
        raise InputError("The searches ended before their budgets were spent: run the same command again to carry on.")
    fresh = Fresh.of(plan, ray.get(actor.found.remote()))
    if all(params is None for params in fresh.winners.values()):
        raise InputError("No trial of any search was completed: marginlab status names the reasons.")
    patiently(fetch)
    step("confirmation")
    with reaping(theirs, say):
        confirm(plan.study.confirmation, fresh.tasks(), folder, packed, ray_folder, machines, session)
    if stopping.asked(folder):
        raise Stopped
    patiently(fetch)
    if left := [t for t in fresh.tasks() if RunFolder.open(folder / t.folder).result() is None]:
        raise InputError(f"{len(left)} confirmation runs have not ended: run the same command again to carry on.")
    ray.kill(actor)
    end_cleaners()
    patiently(partial(storage.clear, ray_folder))
    patiently(partial(sweep, folder / "runs"))
