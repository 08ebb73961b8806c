"""What nobody uses any more is given back: what Ray Train forgot, of this job and of jobs that are dead.

Ray Train forgets a placement group whose host is lost while its workers start: the group stays, is placed anew when CPUs are
free, and keeps them. Whoever waits for them would wait for ever. And a controller begins with an actor that is to remove its
placement group should it die. Where it dies before it has told that one to look, it stays, a process on the head, for ever.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray
from ray._raylet import PlacementGroupID
from ray.exceptions import RayError
from ray.util.placement_group import PlacementGroup, remove_placement_group
from ray.util.state import list_actors, list_jobs, list_placement_groups
from ray.util.state.exception import RayStateApiException

LOOK_S = 5.0
EMPTY_S = 30.0  # actors follow a group's making at once: one that has had none for so long has been forgotten
START_S = float(os.environ.get("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "60"))
# Whoever waits for a group to be placed gives up, and removes it, after START_S.
UNPLACED_S = START_S + EMPTY_S
MOST = 10_000  # groups and actors in one look
ALIVE = (
    "DEPENDENCIES_UNREADY",
    "PENDING_CREATION",
    "ALIVE",
    "RESTARTING",
)  # states of actors; on in this order, mostly
TROUBLE = (RayError, RayStateApiException, OSError)  # the dashboard does not answer
HEAD = "node:__internal_head__"
CONTROLLER, CLEANER = "TrainController", "PlacementGroupCleaner"  # Ray Train's names of the two actors
GOING_S = 10.0  # a cleaner goes in less than two seconds after its controller


@dataclass(frozen=True)
class Group:
    """A placement group as one look finds it."""

    id: str
    placed: bool  # all of its resources are reserved
    used: bool  # an actor that is not dead belongs to it
    own: bool = True  # of this job, not of a dead one


@dataclass
class Reaper:
    """Remembers since when groups have been empty. ``due`` is told of every look."""

    since: dict[tuple[str, bool], float] = field(default_factory=dict)

    def due(self, groups: list[Group], now: float) -> list[str]:
        """The groups that nobody has used for too long. ``now``: seconds of a clock that is never set back."""
        empty = [(g.id, g.placed) for g in groups if not g.used]
        self.since = {key: self.since.get(key, now) for key in empty}
        return [id for id, placed in empty if now - self.since[id, placed] >= (EMPTY_S if placed else UNPLACED_S)]


@dataclass(frozen=True)
class Found:
    groups: list[Group]  # but for those on the head: they are of the driver's own making
    cleaners: dict[str, int]  # of jobs without a controller: process on the head, by actor


def look(job: str) -> Found:
    """What this job has, and what jobs that are dead have left."""
    # By its address: Ray's own search for it fails where a machine has two.
    here: dict[str, Any] = {"address": ray.get_runtime_context().gcs_address, "limit": MOST, "timeout": 20}
    alive = {j.job_id for j in list_jobs(**here) if j.job_id and j.status in ("RUNNING", "PENDING")} - {job}
    groups = list_placement_groups(filters=[("state", "!=", "REMOVED")], detail=True, **here)
    # After the groups: an actor that was made between the two looks is seen.
    # By state: the dead ones of a cluster's life are not counted against the limit then.
    actors = [a for state in ALIVE for a in list_actors(filters=[("state", "=", state)], detail=True, **here)]
    used = {a.placement_group_id for a in actors}
    directed = {a.job_id for a in actors if a.class_name == CONTROLLER}
    return Found(
        [
            Group(g.placement_group_id, g.state == "CREATED", g.placement_group_id in used, g.creator_job_id == job)
            for g in groups
            if not g.is_detached and g.creator_job_id not in alive and not _on_head(g.bundles or [])
        ],
        {a.actor_id: a.pid for a in actors if a.class_name == CLEANER and a.pid and a.job_id not in alive | directed},
    )


def _on_head(bundles: list[dict]) -> bool:  # type: ignore[type-arg]
    return any(HEAD in bundle.get("unit_resources", {}) for bundle in bundles)


def there() -> set[str]:
    """The groups that this job has. A study takes those that were there before it for somebody else's."""
    with suppress(*TROUBLE):
        return {g.id for g in look(ray.get_runtime_context().get_job_id()).groups if g.own}
    return set()


@contextmanager
def reaping(theirs: set[str], say: Callable[[str], None]) -> Iterator[None]:
    """Look every few seconds for the length of the block, in which all groups of this job but those on the head must be Ray
    Train's: Tune's own may be empty for as long as the registrar has no answer.

    Args:
        theirs: groups that are left alone.
        say: told of what was given back, in a sentence.
    """
    over = threading.Event()
    thread = threading.Thread(target=_loop, args=(over, theirs, say), name="reaper", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(LOOK_S)


def _loop(over: threading.Event, theirs: set[str], say: Callable[[str], None]) -> None:
    reaper, job = Reaper(), ray.get_runtime_context().get_job_id()
    while not over.wait(LOOK_S):
        with suppress(*TROUBLE):  # the dashboard is away: there is a next look
            found = look(job)
            left = [Group(id, placed=True, used=False) for id in found.cleaners]
            for id in reaper.due([g for g in found.groups if g.id not in theirs] + left, time.monotonic()):
                if id in found.cleaners:
                    _end(found.cleaners[id])
                else:
                    remove_placement_group(PlacementGroup(PlacementGroupID.from_hex(id)))
                    say("Ray kept resources for a worker group that is no more: they were given back.")


def end_cleaners() -> None:
    """When nobody of this job trains any more: wait for Ray Train's cleaners to go, and end those that have been forgotten."""
    job, until = ray.get_runtime_context().get_job_id(), time.monotonic() + GOING_S
    with suppress(*TROUBLE):
        left = look(job).cleaners
        while left and time.monotonic() < until:
            time.sleep(0.5)
            # Of another job that dies meanwhile there may be one at its work.
            left = {id: pid for id, pid in look(job).cleaners.items() if id in left}
        for pid in left.values():
            _end(pid)


def _end(pid: int) -> None:
    """Ray ends an actor for whoever has its handle, and nobody has that one's: its process is ended, on the head."""

    def kill() -> None:
        with suppress(OSError):
            if CLEANER in Path(f"/proc/{pid}/cmdline").read_text():
                os.kill(pid, signal.SIGKILL)

    ray.get(ray.remote(num_cpus=0, resources={HEAD: 0.001})(kill).remote(), timeout=60)
