"""A study's driver on the head host, and a look from there at what the cluster has reserved."""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import time
from collections.abc import Callable
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import pytest

from marginlab import bucket
from tests.cluster import driving
from tests.hosts import netns
from tests.hosts.raycluster import RayCluster, wait

LIMIT_S = 600.0
LOOK_S = 2.0  # a study says what it waits for, and tells MLflow what is new, so often and not every ten seconds

_forks = multiprocessing.get_context("forkserver")
_forks.set_forkserver_preload(
    ["tests.cluster.driving", "tests.hosts.studies", "ray.tune", "ray.train.torch", "marginlab.report"]
)


def _on_head(namespace: str, env: dict[str, str], log: Path, do: Callable[..., None], args: tuple[Any, ...]) -> None:
    with log.open("a") as out:
        os.dup2(out.fileno(), sys.stdout.fileno())
        os.dup2(out.fileno(), sys.stderr.fileno())
    os.environ.clear()
    os.environ.update(env)
    netns.enter(namespace)
    do(*args)


def drive(study: str, workspace: Path | str, address: str, database: str, tracking: str | None) -> None:
    """``marginlab run`` of a study of tests/hosts/studies.py."""
    os.environ["MARGINLAB_STUDY_DATABASE"] = database
    from marginlab import running
    from marginlab.workspace import Workspace
    from tests.hosts import studies

    running.SYNC_PERIOD_S = LOOK_S

    def say(sentence: str) -> None:
        print(f"{time.time():.1f} {sentence}", flush=True)

    running.run_study(
        getattr(studies, study),
        Workspace.at(workspace),
        on_step=say,
        progress=lambda *_: None,
        on_trouble=say,
        address=address,
        tracking_uri=tracking,
    )


def _look(address: str, out: Path) -> None:
    """Write what is reserved: by live jobs or by dead ones makes no difference once a study is over."""
    import ray
    from ray.util.state import list_placement_groups

    ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    groups = [g.placement_group_id for g in list_placement_groups(address=address) if g.state != "REMOVED"]
    total, free = ray.cluster_resources(), ray.available_resources()
    found = {"groups": groups, "cpus": total.get("CPU", 0.0), "free": free.get("CPU", 0.0)}
    out.write_text(json.dumps(found))


class Head:
    """Processes on the head of a cluster, forked from one that has imported everything."""

    def __init__(self, cluster: RayCluster) -> None:
        self.cluster = cluster
        with pytest.MonkeyPatch.context() as patch:  # Ray reads its token and mode once, when it is imported
            for name, setting in cluster.env.items():
                patch.setenv(name, setting)
            forkserver.ensure_running()

    def fork(self, log: Path, do: Callable[..., None], *args: Any) -> Any:
        process = _forks.Process(target=_on_head, args=(self.cluster.head.namespace, self.cluster.env, log, do, args))
        process.start()
        return process

    def do(self, do: Callable[..., None], *args: Any, limit_s: float = 60.0) -> None:
        """Call it there; AssertionError with what it said if it fails or takes too long."""
        process = self.fork(log := self.cluster.folder / f"{do.__name__.strip('_')}.log", do, *args)
        process.join(limit_s)
        process.kill()
        process.join()
        assert process.exitcode == 0, f"{do.__name__}, {limit_s:.0f} s: {log.read_text()[-4000:]}"

    def reserved(self) -> dict[str, Any]:
        """Placement groups that are there, CPUs and free CPUs."""
        out = self.cluster.folder / "reserved.json"
        out.unlink(missing_ok=True)
        self.do(_look, self.cluster.address, out)
        return dict(json.loads(out.read_text()))

    def nothing_is_reserved(self) -> bool:
        found = self.reserved()
        return not found["groups"] and found["free"] == found["cpus"] == len(self.cluster.workers) * self.cluster.cpus

    def nothing_reserved(self) -> None:
        """What a study has given back, Ray knows within moments."""
        wait(self.nothing_is_reserved, "all CPUs free")


class Ended(AssertionError):
    """A study came to its end, a good one, while something was to happen to it."""


class Driver:
    """One ``run`` of a study on a cluster of hosts."""

    def __init__(
        self, head: Head, study: str, workspace: Path | str, database: str = "sqlite", tracking: str | None = None
    ) -> None:
        from tests.hosts import studies

        self.head, self.cluster, self._args = head, head.cluster, (head, study, workspace, database, tracking)
        own = bucket.folder_of(workspace) if bucket.named(workspace) else Path(workspace)
        self.folder = own / "studies" / getattr(studies, study).name
        self.log = self.cluster.folder / f"{own.name}.log"  # not beside it: that disk may be full
        self.log.touch()
        self.process = head.fork(self.log, drive, study, workspace, self.cluster.address, database, tracking)

    def again(self) -> Driver:
        """The same command."""
        return Driver(*self._args)

    def said(self) -> str:
        return self.log.read_text()[-4000:]

    def until(self, what: Callable[[], Any], limit_s: float = LIMIT_S) -> Any:
        """The first true answer; the study must not end before."""
        deadline = time.monotonic() + limit_s
        while not (answer := what()):
            if not self.process.is_alive():
                assert self.process.exitcode == 0, self.said()
                raise Ended(f"The study ended before its time.\n{self.said()}")
            assert time.monotonic() < deadline, self.said()
            time.sleep(0.02)
        return answer

    def kill(self) -> None:
        self.process.kill()
        self.process.join()

    def end(self, limit_s: float = LIMIT_S) -> None:
        """Wait for the study's end, which must be a good one."""
        self.process.join(limit_s)
        assert self.process.exitcode == 0, self.said()


def trained(folder: Path, kind: str = "*") -> int:
    return driving.trained(folder, kind)
