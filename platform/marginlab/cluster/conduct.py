"""A study from its first search to its last confirmation run, on Ray."""

from __future__ import annotations

import shutil
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from marginlab.cluster.session import cluster_resources, concurrency, gpus_per_worker, session
from marginlab.networks import normalises_by_batch
from marginlab.plan import Plan, SearchKey
from marginlab.study import Study
from marginlab.values import InputError

Step = Callable[[str], None]  # called with the name of each step that begins


def preflight(study: Study, available: dict[str, float]) -> None:
    """Refuse what the cluster can never schedule, and what would not compare, before anything is trained."""
    search, confirmation = study.search.resources, study.confirmation.resources
    concurrency("Search", search, available)
    concurrency("Confirmation", confirmation, available)
    if search.workers == confirmation.workers or study.mixed_normalisation:
        return
    on_cpus = [r for r in (search, confirmation) if r.workers > 1 and gpus_per_worker(r, available) == 0]
    for arm in study.arms:
        if on_cpus and normalises_by_batch(arm.training.network):
            raise InputError(
                f"Arm {arm.name!r} uses batch normalisation, which on CPUs sees one worker's part of a batch: search "
                f"({search.workers} workers) and confirmation ({confirmation.workers}) would normalise differently. Give both as "
                "many workers, use GPUs or a network without it, or say Study(mixed_normalisation=True)."
            )


def conduct(
    plan: Plan, folder: Path, packed: dict[str, str], step: Step, address: str | None = None, cpus: int | None = None
) -> None:
    """Search and confirm. What has been done before is not done again.

    Args:
        folder: the study's folder, declared.
        packed: packed dataset folder by dataset name.
    """
    step("ray")
    with session(address, cpus):
        import ray

        from marginlab.cluster import registrar
        from marginlab.cluster.confirming import confirm
        from marginlab.cluster.searching import search

        available = cluster_resources()
        preflight(plan.study, available)
        token = f"{int(time.time())}-{uuid.uuid4().hex[:6]}"
        name = f"registrar-{plan.study.name}-{token}"
        storage = folder / "ray"
        actor = registrar.start(folder, name, token)
        step("search")
        most = len(plan.searches()) * plan.study.search.epochs_budget
        search(plan.study.search, actor, name, token, packed, storage, available, most)
        winners: list[tuple[SearchKey, dict[str, Any] | None]] = ray.get(actor.winners.remote())
        lost = [str(key) for key, params in winners if params is None]
        if len(lost) == len(winners):
            raise InputError(
                "No trial of any search was completed. The reasons are in the study's run folders and in marginlab status."
            )
        step("confirmation")
        tasks = [t for key, params in winners if params is not None for t in plan.confirmations(key, params)]
        confirm(plan.study.confirmation, tasks, folder, packed, storage, available)
        shutil.rmtree(storage, ignore_errors=True)  # Tune's and Train's own state is disposable
