"""What the benchmarks share: turns, ratios with their spread, and rows of BENCHMARKS.md."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Row:
    what: str
    goal: str  # "" where there is none
    measured: str
    met: bool | None  # None where there is no goal


def turns(steps: dict[str, Callable[[], Any]], number: int) -> dict[str, list[float]]:
    """Seconds of each step in each turn. The steps take turns, so that what else the machine does meets all of them."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(number + 1):
        for name, step in steps.items():
            began = time.perf_counter()
            step()
            if turn:  # the first one warms up
                seconds[name].append(time.perf_counter() - began)
    return seconds


def spread(x: Sequence[float]) -> tuple[float, float, float]:
    """Median and quartiles."""
    low, middle, high = np.quantile(x, [0.25, 0.5, 0.75])
    return float(middle), float(low), float(high)


def ratios(above: Sequence[float], below: Sequence[float]) -> tuple[float, float, float]:
    """Median and quartiles of the ratios, one of each turn."""
    return spread(np.asarray(above) / np.asarray(below))


def times(x: tuple[float, float, float]) -> str:
    middle, low, high = (f"{v:.1f}" for v in x)
    return f"{middle}x ({low} to {high})"


def apart(*command: str) -> Any:
    """What this script says as JSON in a process of its own, with as many threads as it asks for itself."""
    environment = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"}
    # Freed memory goes back at once: without this, what an earlier step had would hide what a later one takes.
    environment |= {"MALLOC_MMAP_THRESHOLD_": "131072"} if "memory" in command else {}
    done = subprocess.run([sys.executable, *command], env=environment, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout)
