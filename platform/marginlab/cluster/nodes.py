"""Every node of a cluster looks at itself (``marginlab doctor``)."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from marginlab import bucket
from marginlab.doctor import node as own
from marginlab.values import InputError

ANSWER_S = 180.0  # a node that has to import torch from a network disk takes its time
FETCH_S = 3600.0  # and so does one that has to fetch a dataset from object storage
LOOKS = 3  # at a clock: the quickest is believed


@ray.remote(num_cpus=0)
class _Looker:
    def look(self, workspace: str, mark: str, packed: Mapping[str, str], gpus: float) -> dict[str, Any]:
        return own.look(workspace, mark, packed, gpus)

    def now(self) -> float:
        return own.now()


def look_everywhere(workspace: Path, mark: str, packed: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """What ``doctor.findings.judge`` wants of the nodes, by their addresses. Inside a ``session``.

    Raises:
        InputError: a node does not answer.
    """
    lookers = {}
    for found in ray.nodes():  # type: ignore[no-untyped-call]
        if found["Alive"]:
            there = NodeAffinitySchedulingStrategy(found["NodeID"], soft=False)
            looker = _Looker.options(  # type: ignore[attr-defined]
                scheduling_strategy=there
            ).remote()
            gpus = float(found["Resources"].get("GPU", 0))
            lookers[found["NodeManagerAddress"]] = looker, looker.look.remote(str(workspace), mark, dict(packed), gpus)
    seen = {}
    for address, (looker, ref) in lookers.items():
        try:
            seen[address] = ray.get(ref, timeout=FETCH_S if bucket.key_of(workspace) and packed else ANSWER_S) | {
                "late": _late(looker)
            }
        except ray.exceptions.RayError as e:
            last = (str(e).strip().splitlines() or [type(e).__name__])[-1]
            raise InputError(
                f"The node {address} does not answer ({last}): look into its Ray logs, or take it out of the cluster."
            ) from None
        finally:
            ray.kill(looker)
    for report in seen.values():
        wrote = report["workspace"]["wrote"]
        report["echo"] = bool(wrote) and own.appears(workspace / wrote) is not None
    return seen


def _late(looker: Any) -> float:
    """Seconds by which a node's clock is ahead, by the quickest of a few answers."""
    best, late = float("inf"), 0.0
    for _ in range(LOOKS):
        began, before = time.monotonic(), time.time()
        there = ray.get(looker.now.remote(), timeout=ANSWER_S)
        took = time.monotonic() - began
        if took < best:
            best, late = took, there - (before + took / 2)
    return late
