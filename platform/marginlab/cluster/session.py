"""Starting or joining Ray, and refusing early what it could never schedule."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import marginlab
from marginlab import bucket
from marginlab.cluster import ENVIRONMENT
from marginlab.cluster.machines import Machines
from marginlab.cluster.token import make_token
from marginlab.stopping import handlers_kept
from marginlab.values import InputError

NAMESPACE = "marginlab"

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
    from ray.exceptions import AuthenticationError

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
        make_token()
    else:
        options["address"] = address
    try:
        with handlers_kept():
            ray.init(**options)
    except ConnectionError as e:
        raise InputError(
            f"No Ray cluster answers at {address}: {e}. Start it, or leave --address out to run here."
        ) from None
    # No token or another's; another Ray or Python; no address.
    except (AuthenticationError, RuntimeError, ValueError) as e:
        if address is None:
            raise
        first = str(e).strip().partition("\n")[0]
        raise InputError(
            f"The Ray cluster at {address} cannot be joined: {first} (--address takes the address that nodes join, such as head:6379, "
            "or auto on a node; the dashboard's is for submit)."
        ) from None
    try:
        yield
    finally:
        ray.shutdown()


def machines() -> Machines:
    """The machines that there are, and those that an autoscaling cluster can have of each kind. Refuses nothing."""
    import ray

    there = [n["Resources"] for n in ray.nodes() if n["Alive"]]  # type: ignore[no-untyped-call]
    node: Any = ray._private.worker._global_node
    started_here = node.is_head()  # and then no cluster's
    growing = [] if started_here else may_come(Path("~/ray_bootstrap_config.yaml").expanduser())
    if not growing:
        return Machines.of(there)
    # Kinds that only the cluster file knows (a head that was started with fewer CPUs than its type has) stand beside the file's.
    known = [has for _, has in growing]
    others = [(1, has) for n in there if any((has := amounts_of(n)).values()) and has not in known]
    return Machines((*growing, *others))


def may_come(file: Path) -> list[tuple[int, dict[str, float]]]:
    """How many machines of each kind the cluster's file allows: ``ray up`` leaves it on the head, where drivers run, and Ray itself
    does not tell (``get_cluster_config`` of Ray 2.60 is empty). Kinds whose size the file does not say are left out: they do not scale.
    """
    if not file.exists():
        return []
    config = json.loads(file.read_text())
    most = config.get("max_workers", 0)
    kinds = []
    for name, kind in config.get("available_node_types", {}).items():
        number, has = min(kind.get("max_workers", most), most), amounts_of(kind.get("resources", {}))
        if name != config.get("head_node_type") and number and any(has.values()):
            kinds.append((number, has))
    return kinds


def amounts_of(resources: Mapping[str, float]) -> dict[str, float]:
    return {name: float(resources[name]) if name in resources else 0.0 for name in ("CPU", "GPU")}
