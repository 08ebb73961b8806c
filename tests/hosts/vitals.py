"""What the processes of a cluster take, sampled while it works, to see whether anything grows that should not."""

from __future__ import annotations

import os
import re
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import linear_regression, median

from tests.hosts.driving import Driver, Head
from tests.hosts.faults import REGISTRAR
from tests.hosts.raycluster import RAYLET, RayCluster, _title

KINDS = {"GCS": "/gcs_server ", "raylet": RAYLET, "registrar": REGISTRAR, "tracking": "multiprocessing.spawn import"}
DRIVER = "driver"
SAMPLE_S, LOOK_S = 10.0, 120.0
MB = 1 << 20
PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass
class Life:
    """Of one process: when it was looked at, its own memory in MB, and its open file handles."""

    kind: str
    at: list[float] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)
    files: list[float] = field(default_factory=list)

    @property
    def length_s(self) -> float:
        return self.at[-1] - self.at[0]

    def grown(self, memory: float, files: float) -> bool:
        return self.growth(self.memory) > memory or self.growth(self.files) > files

    def growth(self, values: list[float]) -> float:
        """From the median of the first third to that of the last."""
        third = max(len(values) // 3, 1)
        return median(values[-third:]) - median(values[:third])

    def per_hour(self, values: list[float]) -> float:
        """The slope of the line through them with the least squares."""
        return linear_regression(self.at, values).slope * 3600


class Vitals:
    """For the length of a ``with``: a thread that looks at processes every few seconds, and one that looks at placement groups now
    and then, because that takes seconds.

    Args:
        driver: of the study at this moment.
    """

    def __init__(self, head: Head, driver: Callable[[], Driver | None]) -> None:
        self.head, self.driver = head, driver
        self.lives: dict[int, Life] = {}
        self.groups: list[int] = []
        self.over = threading.Event()
        self.threads = [threading.Thread(target=f, daemon=True) for f in (self._processes, self._groups)]

    def __enter__(self) -> Vitals:
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        for thread in self.threads:
            thread.join()

    def _processes(self) -> None:
        while not self.over.wait(SAMPLE_S):
            there = {pid: kind for kind, title in KINDS.items() for pid in self.head.cluster.pids(title)}
            if (driver := self.driver()) and driver.process.pid:
                there[driver.process.pid] = DRIVER
            for pid, kind in there.items():
                with suppress(OSError):  # it has just ended
                    _, resident, shared = (int(n) for n in Path(f"/proc/{pid}/statm").read_text().split()[:3])
                    files = len(os.listdir(f"/proc/{pid}/fd"))
                    life = self.lives.setdefault(pid, Life(kind))
                    life.at.append(time.monotonic())
                    life.memory.append((resident - shared) * PAGE / MB)
                    life.files.append(files)

    def _groups(self) -> None:
        while not self.over.wait(LOOK_S):
            with suppress(AssertionError):  # it did not answer in time
                self.groups.append(len(self.head.reserved()["groups"]))

    def told(self, least_s: float) -> list[str]:
        """A line per kind of process."""
        lines = []
        for kind in [*KINDS, DRIVER]:
            lives = [life for life in self.long(least_s) if life.kind == kind]
            every = sum(life.kind == kind for life in self.lives.values())
            line = f"{kind:12} {every:3} processes, {len(lives)} of them for {least_s:.0f} s or longer"
            for name, unit in (("memory", "MB"), ("files", "files")):
                values = [getattr(life, name) for life in lives]
                grown = [life.growth(v) for life, v in zip(lives, values, strict=True)]
                slopes = [life.per_hour(v) for life, v in zip(lives, values, strict=True)]
                if lives:
                    line += f"; {max(map(max, values)):.0f} {unit} at most, grew by {max(grown):.1f} ({max(slopes):+.1f} an hour)"
            lines.append(line)
        early, late = self.most_groups()
        return [
            *lines,
            f"placement groups: {early} at most in the first third of {len(self.groups)} looks, {late} in the last",
        ]

    def most_groups(self) -> tuple[int, int]:
        """There at a time, in the first third of the looks and in the last."""
        third = max(len(self.groups) // 3, 1)
        return max(self.groups[:third], default=0), max(self.groups[-third:], default=0)

    def long(self, least_s: float) -> list[Life]:
        """Those that lived long enough for a judgement."""
        return [life for life in self.lives.values() if len(life.at) > 5 and life.length_s >= least_s]


def census(cluster: RayCluster) -> dict[str, Counter[str]]:
    """What runs on each host, by the name of its program, but for workers that Ray keeps ready."""
    found = {
        host.namespace: Counter(_program(_title(pid)) for pid in host.pids())
        for host in [cluster.head, *cluster.workers]
    }
    return {host: Counter({k: n for k, n in there.items() if k and "IDLE" not in k}) for host, there in found.items()}


def _program(title: str) -> str:
    """``ray::Registrar``, ``agent.py``, ``raylet``; empty for a process that has just ended."""
    own = re.match(r"ray::\w+", title)
    if own or not title:
        return own[0] if own else ""
    words = title.split()
    return Path(next((w for w in words if w.endswith(".py")), words[0])).name
