"""Processes for work that is better done elsewhere on this machine. Each ends with the one that started it, however that ends."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context, parent_process
from typing import Any


def pool(
    workers: int, start: Callable[..., None] | None = None, *args: Any, deaf: Sequence[signal.Signals] = ()
) -> ProcessPoolExecutor:
    """Processes that import what they need: they are spawned, not forked.

    Args:
        start: called first in each, with these arguments.
        deaf: signals that they do not hear, besides Ctrl-C. A pool of several must hear SIGTERM: when one dies, it ends the others so.
    """
    given = ((signal.SIGINT, *deaf), start, args)
    return ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_start, initargs=given)


def _start(deaf: Sequence[signal.Signals], start: Callable[..., None] | None, args: Sequence[Any]) -> None:
    """Ctrl-C is for the process that asked; and when that one is killed, this one would wait for ever for more to do."""
    for number in deaf:
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if start is not None:
        start(*args)


def _end_with_parent() -> None:
    if (parent := parent_process()) is not None:
        parent.join()
        os._exit(1)
