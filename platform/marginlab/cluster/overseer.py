"""What the process that directs a worker group watches: that the group begins and its workers answer, and what no new start mends.

The ranks watch one another (watched.py) from when they all train until they are through. Before and after that a worker that is
stopped would be waited for without an end, or for Ray's ten minutes.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ray.exceptions import RayTaskError
from ray.train.v2._internal.constants import WORKER_HEALTH_CHECK_TIMEOUT_S_ENV_VAR
from ray.train.v2._internal.exceptions import WorkerHealthCheckTimeoutError
from ray.train.v2._internal.execution.callback import ControllerCallback, WorkerGroupCallback

from marginlab import faults, stopping
from marginlab.cluster.device import DeviceFails
from marginlab.cluster.reaper import START_S
from marginlab.files import WAITED
from marginlab.stopping import Stopped

PROCESSES_S = 60.0  # to start the workers' processes and import what they need
LATER_S = 10.0  # the ranks know better what each of them did, and speak first


class Overseer(ControllerCallback, WorkerGroupCallback):
    """Made where a group is asked for, and sent to the process that directs it. Ends that process where the group does not begin:
    Ray then ends the workers, and ``train_group`` begins anew. What it raises, ``train_group`` gets in a ControllerError: Stopped, where
    the study is to stop, and CannotGoOn."""

    def __init__(self, study: Path, stalled_s: float) -> None:
        """stalled_s: for so long a worker may be silent."""
        self.study, self.silent_s = study, stalled_s + LATER_S
        self.begin_s = START_S + PROCESSES_S + stalled_s
        self.hosts: list[str] = []  # of the ranks

    def after_controller_start(self, train_run_context: Any) -> None:
        self.silent_s = float(os.environ.setdefault(WORKER_HEALTH_CHECK_TIMEOUT_S_ENV_VAR, str(self.silent_s)))

    @contextmanager
    def on_worker_group_start(self) -> Iterator[None]:
        """Comes again and again where there is no place for the group; a stop is not waited for until there is one."""
        if stopping.asked(self.study):
            raise Stopped("The study was asked to stop.")
        timer = threading.Timer(self.begin_s, self._end)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _end(self) -> None:
        sentence = f"A worker group did not begin within {self.begin_s:.0f} s: a process is stopped, or a host cut off."
        faults.note(self.study, sentence)
        os._exit(1)

    def after_worker_group_start(self, worker_group: Any) -> None:
        self.hosts = [w.metadata.hostname for w in worker_group.get_workers()]

    def after_worker_group_poll_status(self, worker_group_status: Any) -> None:
        for rank, status in worker_group_status.worker_statuses.items():
            if isinstance(status.error, WorkerHealthCheckTimeoutError):
                where = f"Rank {rank} on {self.hosts[rank]}"
                said = f"was not heard from for {self.silent_s:.0f} s: its process is stopped, or its host cut off."
                faults.note(self.study, f"{where} {said}")
            elif refused := _refusal(getattr(status.error, "_base_exc", status.error)):
                raise CannotGoOn(f"Rank {rank} on {self.hosts[rank]}: {refused}")


class CannotGoOn(RuntimeError):
    """Not a run's failure, and no new start mends it: ends the group, the starts of which are the runs' own to count."""


def _refusal(error: Any) -> str:
    """What a GPU said that is lost, or a disk or the study's database that stayed away for longer than it was waited for; empty of
    any other error."""
    # The registrar has waited itself; it answers with an error only then.
    if isinstance(error, RayTaskError | DeviceFails) or WAITED in getattr(error, "__notes__", ()):
        return str(error).strip().splitlines()[-1]
    return ""
