"""A tracker in a process of its own. MLflow takes 100 MB and, of a search of short trials, more than twice the CPU seconds of
all else that a driver does (BENCHMARKS.md, overhead).
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

from marginlab import spawned
from marginlab.tracking.projector import Tracker
from marginlab.tracking.store import TrackingAway

TRIES = 2  # of what ends the process
P = ParamSpec("P")
T = TypeVar("T")

_tracker: Tracker  # in that process


class Apart:
    """Does what is asked with a tracker, elsewhere, and waits for it. The process is there from the first time on."""

    def __init__(self, tracker: Tracker) -> None:
        self.tracker = tracker
        self._pool: ProcessPoolExecutor | None = None

    def do(self, what: Callable[Concatenate[Tracker, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """``what(tracker, *args, **kwargs)``: a function that can be imported, with arguments that can be pickled.

        Raises:
            TrackingAway: the process ended twice, killed for its memory perhaps.
        """
        for _ in range(TRIES):
            # A signal to all processes of a group is for the driver, which may still have something to be done here.
            self._pool = self._pool or spawned.pool(1, _keep, self.tracker, deaf=[signal.SIGTERM])
            try:
                answer: T = self._pool.submit(_do, what, args, kwargs).result()
                return answer
            except BrokenProcessPool:
                self.close()
        raise TrackingAway(
            "The process that brings MLflow up to date was killed, and again. The runs go on and their folders hold everything; "
            "`marginlab sync` brings MLflow up to date later."
        )

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, e: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def _keep(tracker: Tracker) -> None:
    global _tracker
    _tracker = tracker


def _do(what: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return what(_tracker, *args, **kwargs)
