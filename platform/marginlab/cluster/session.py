"""Starting or joining Ray, and refusing early what it could never schedule."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import marginlab
from marginlab import bucket
from marginlab.cluster import ENVIRONMENT
from marginlab.cluster.machines import Machines
from marginlab.stopping import handlers_kept
from marginlab.values import InputError

NAMESPACE = "marginlab"

_LIMITLESS = 1000  # machines of a kind whose number the cluster's file does not limit
_OBJECT_STORE = 200_000_000  # bytes; images and results travel through files, not through Ray


def given(address: str | None = None) -> str | None:
    """The address of the running cluster to join: the one named, or that of the cluster that this process is a job of."""
    return address or os.environ.get("RAY_ADDRESS")


@contextmanager
def session(address: str | None = None, cpus: int | None = None) -> Iterator[None]:
    """Ray for the length of the block: a running cluster (``address``, or RAY_ADDRESS inside a job), or one started here.

    Workers do not inherit this process's environment on a cluster, so what they need is passed with the runtime environment.
    """
    import ray

    if ray.is_initialized():  # the caller's own
        yield
        return
    address = given(address)
    if address and address.startswith("ray://"):
        raise InputError(
            f"{address} is a Ray Client address, over which a study would depend on this machine. Submit it instead: "
            "marginlab submit STUDY.py --address http://HEAD:8265 --workspace FOLDER"
        )
    source = str(Path(marginlab.__file__).parents[1])
    path = os.pathsep.join(dict.fromkeys([source, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]))
    passed = {k: os.environ[k] for k in (*ENVIRONMENT, *bucket.SETTINGS) if k in os.environ}
    passed[bucket.CACHE] = str(bucket.cache().parent)  # the same on all nodes, whatever their homes are
    options: dict[str, Any] = {
        "namespace": NAMESPACE,
        "log_to_driver": False,
        "logging_level": "ERROR",
        "runtime_env": {"env_vars": {**passed, "PYTHONPATH": path}},
    }
    if address is None:
        # The dashboard stays on: without it Ray Train leaks placement groups.
        # "local": another Ray of this machine is not ours, nor is one that died and left its address behind.
        options |= {
            "address": "local",
            "include_dashboard": True,
            "dashboard_host": "127.0.0.1",
            "object_store_memory": _OBJECT_STORE,
        }
        options |= {"num_cpus": cpus} if cpus else {}
    else:
        options["address"] = address
    try:
        with handlers_kept():
            ray.init(**options)
    except ConnectionError as e:
        raise InputError(
            f"No Ray cluster answers at {address}: {e}. Start it, or leave --address out to run here."
        ) from None
    try:
        yield
    finally:
        ray.shutdown()


def machines() -> Machines:
    """The machines that there are, and those that an autoscaling cluster can have of each kind. Refuses nothing."""
    import ray

    there = [n["Resources"] for n in ray.nodes() if n["Alive"]]  # type: ignore[no-untyped-call]
    config = ray._private.state.state.get_cluster_config()
    growing = [g for g in config.node_group_configs if g.max_count] if config else []
    if not growing:
        return Machines.of(there)
    # Kinds that only the cluster file knows (a head that was started with fewer CPUs than its type has) stand beside the file's.
    kinds = [(_LIMITLESS if g.max_count < 0 else g.max_count, amounts_of(g.resources)) for g in growing]
    known = [has for _, has in kinds]
    return Machines((*kinds, *((1, has) for n in there if (has := amounts_of(n)) not in known)))


def amounts_of(resources: Mapping[str, float]) -> dict[str, float]:
    return {name: float(resources[name]) if name in resources else 0.0 for name in ("CPU", "GPU")}
