"""What there is to train on, machine by machine, and how many workers fit on it. Does not import Ray."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Machines:
    """Kinds of machines: how many there are alike, and what each of them has by resource name (``CPU``, ``GPU``)."""

    kinds: tuple[tuple[int, Mapping[str, float]], ...]

    @classmethod
    def of(cls, each: Iterable[Mapping[str, float]]) -> Machines:
        """Of single machines; one that has neither, such as a head that only leads, trains nothing and is left out."""
        counted: dict[tuple[tuple[str, float], ...], int] = {}
        for has in each:
            key = tuple((name, float(has.get(name, 0))) for name in ("CPU", "GPU"))
            if not any(amount for _, amount in key):
                continue
            counted[key] = counted.get(key, 0) + 1
        return cls(tuple((n, dict(key)) for key, n in counted.items()))

    @classmethod
    def one(cls, cpus: float, gpus: float = 0) -> Machines:
        return cls.of([{"CPU": cpus, "GPU": gpus}])

    def total(self, name: str) -> float:
        return sum(n * has.get(name, 0) for n, has in self.kinds)

    def workers(self, cpus: float, gpus: float) -> int:
        """How many workers fit at once, each of which lies on one machine, and a share of a GPU on one GPU."""
        return sum(n * fitting(has, cpus, gpus) for n, has in self.kinds)

    def __str__(self) -> str:
        """Such as ``2 machines with 8 CPUs and 1 GPU, 1 machine with 4 CPUs``."""
        return ", ".join(f"{n} machine{'s' * (n != 1)} with {amounts(has)}" for n, has in self.kinds) or "no machine"


def fitting(has: Mapping[str, float], cpus: float, gpus: float) -> int:
    """Workers that fit on one machine."""
    by_cpu = math.floor(has.get("CPU", 0) / cpus + 1e-9)
    if gpus == 0:
        return by_cpu
    return min(by_cpu, math.floor(has.get("GPU", 0)) * sharing(gpus))


def sharing(gpus: float) -> int:
    """Workers on one GPU, each of which has this share of it (1 where one has the whole)."""
    return max(1, math.floor(1 / gpus + 1e-9)) if gpus else 1


def amounts(has: Mapping[str, float]) -> str:
    """Such as ``8 CPUs and 1 GPU``; what there is none of is left out."""
    named = [f"{n:g} {name}{'s' * (n != 1)}" for name in ("CPU", "GPU") if (n := has.get(name, 0))]
    return " and ".join(named) or "nothing"
