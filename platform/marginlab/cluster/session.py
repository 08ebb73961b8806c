"""Starting or joining Ray, and refusing early what it could never schedule."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import marginlab
from marginlab.cluster import ENVIRONMENT
from marginlab.study import Resources
from marginlab.values import InputError

NAMESPACE = "marginlab"

_OBJECT_STORE = 200_000_000  # bytes; images and results travel through files, not through Ray


@contextmanager
def session(address: str | None = None, cpus: int | None = None) -> Iterator[None]:
    """Ray for the length of the block: a running cluster (``address``, or RAY_ADDRESS inside a job), or one started here.

    Workers do not inherit this process's environment on a cluster, so what they need is passed with the runtime environment.
    """
    import ray

    if ray.is_initialized():  # the caller's own
        yield
        return
    address = address or os.environ.get("RAY_ADDRESS")
    source = str(Path(marginlab.__file__).parents[1])
    path = os.pathsep.join(dict.fromkeys([source, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]))
    options: dict[str, Any] = {
        "namespace": NAMESPACE,
        "log_to_driver": False,
        "logging_level": "ERROR",
        "runtime_env": {"env_vars": {**{k: os.environ[k] for k in ENVIRONMENT}, "PYTHONPATH": path}},
    }
    if address is None:
        # The dashboard stays on: without it Ray Train leaks placement groups.
        options |= {"include_dashboard": True, "dashboard_host": "127.0.0.1", "object_store_memory": _OBJECT_STORE}
        options |= {"num_cpus": cpus} if cpus else {}
    else:
        options["address"] = address
    try:
        ray.init(**options)
    except ConnectionError as e:
        raise InputError(
            f"No Ray cluster answers at {address}: {e}. Start it, or leave --address out to run here."
        ) from None
    try:
        yield
    finally:
        ray.shutdown()


def cluster_resources() -> dict[str, float]:
    import ray

    return dict(ray.cluster_resources())  # type: ignore[no-untyped-call]


def gpus_per_worker(resources: Resources, available: dict[str, float]) -> float:
    if isinstance(resources.gpus, str):  # "auto"
        return 1.0 if available.get("GPU", 0) >= 1 else 0.0
    return float(resources.gpus)


def launcher(resources: Resources, available: dict[str, float]) -> str:
    """``auto`` is a Ray Train worker group wherever a run uses a GPU or more than one worker, else the trial's own process."""
    if resources.launcher != "auto":
        return resources.launcher
    return "train" if resources.workers > 1 or gpus_per_worker(resources, available) > 0 else "inline"


def concurrency(what: str, resources: Resources, available: dict[str, float]) -> int:
    """How many runs of these resources fit at once. Raises where not even one ever will."""
    need = {"CPU": resources.workers * resources.cpus, "GPU": resources.workers * gpus_per_worker(resources, available)}
    for name, amount in need.items():
        if amount > available.get(name, 0):
            raise InputError(
                f"{what} needs {amount:g} {name}s for one run ({resources.workers} workers), and there are "
                f"{available.get(name, 0):g}: lower {what}.resources, or run where there are more."
            )
    return max(1, min(int(available.get(name, 0) // amount) for name, amount in need.items() if amount > 0))
