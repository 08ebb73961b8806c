"""Where the time of an epoch goes, without making a GPU wait to be asked."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch

STEPS = ("data", "augment", "forward", "loss", "backward", "evaluation")  # of an epoch, in their order


class Clock:
    """Seconds by step. On a GPU events are recorded and read once, when the epoch ends: no synchronisation in a step."""

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._events: list[tuple[str, torch.cuda.Event, torch.cuda.Event]] = []

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        with _UNHEARD if _listener is None else _listener(self, name):
            if self._cuda:
                start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
                start.record()
                yield
                end.record()
                self._events.append((name, start, end))
            else:
                began = time.perf_counter()
                yield
                self._seconds[name] += time.perf_counter() - began

    def seconds(self) -> dict[str, float]:
        """Seconds by step since the last call; waits for the device."""
        if self._events:
            torch.cuda.synchronize()
            for name, start, end in self._events:
                self._seconds[name] += start.elapsed_time(end) / 1000.0
        out = dict(self._seconds)
        self._seconds.clear()
        self._events.clear()
        return out

    def add(self, seconds: Mapping[str, float]) -> None:
        """Seconds that were spent before; those of no step of ours are passed over."""
        for name in STEPS:
            if name in seconds:
                self._seconds[name] += seconds[name]


Listener = Callable[[Clock, str], AbstractContextManager[None]]
_listener: Listener | None = None
_UNHEARD = nullcontext()


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """For the length of the block, every step of any clock in this process happens inside ``listener(clock, name)``.

    For ``profiling``. What the listener does before and after the step is not timed.
    """
    global _listener
    before, _listener = _listener, listener
    try:
        yield
    finally:
        _listener = before
