"""Starting or joining Ray, and refusing early what it could never schedule."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import marginlab
from marginlab.study import Resources
from marginlab.values import InputError

NAMESPACE = "marginlab"

# Read when Ray is imported or its processes start, so they are set before either.
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "token",
    "RAY_TRAIN_V2_ENABLED": "1",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",  # results and ends reach the driver on this poll; the default is 2 s
    "RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS": "0",
    "RAY_AIR_NEW_OUTPUT": "0",  # the command line draws progress itself
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    # With reused actors a trial that takes longer than this to unwind would hang the study; the default is 2 s.
    "TUNE_FUNCTION_THREAD_TIMEOUT_S": "60",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}
_OBJECT_STORE = 200_000_000  # bytes; images and results travel through files, not through Ray


@contextmanager
def session(address: str | None = None, cpus: int | None = None) -> Iterator[None]:
    """Ray for the length of the block: a running cluster (``address``, or RAY_ADDRESS inside a job), or one started here.

    Workers do not inherit this process's environment on a cluster, so what they need is passed with the runtime environment.
    """
    for name, setting in _ENVIRONMENT.items():
        os.environ.setdefault(name, setting)
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
        "runtime_env": {"env_vars": {**{k: os.environ[k] for k in _ENVIRONMENT}, "PYTHONPATH": path}},
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
