"""An epoch in progress, so that a long one need not be trained again from its beginning. Torch alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from marginlab.margins.statistics import Statistics

# Called on rank 0 between two batches of an epoch with (epoch, batches trained in it, how to get what fit goes on from).
Between = Callable[[int, int, Callable[[], dict[str, Tensor]]], None]
_HEAD = "partway"


@dataclass
class Partway:
    """What an epoch has added up so far; the same on every rank, as are network, optimiser and margin between two batches."""

    step: int = 0  # batches trained
    sums: dict[str, Tensor] = field(default_factory=dict)  # of what is shown per epoch, 0-d float64
    statistics: Statistics | None = None
    seconds: dict[str, float] = field(default_factory=dict)  # by step of the clock, and "elapsed"

    def add(self, seen: Mapping[str, Tensor], found: Statistics) -> None:
        """Another batch."""
        self.step += 1
        for name, v in seen.items():
            x = v.detach().double()
            self.sums[name] = self.sums[name] + x if name in self.sums else x
        self.statistics = found if self.statistics is None else self.statistics.add(found)

    def tensors(self) -> dict[str, Tensor]:
        assert self.statistics is not None
        out = {f"{_HEAD}/sums/{name}": x for name, x in self.sums.items()}
        out |= {f"{_HEAD}/more/{name}": x for name, x in self.statistics.more.items()}
        out |= {f"{_HEAD}/seconds/{name}": torch.tensor(s, dtype=torch.float64) for name, s in self.seconds.items()}
        return {**out, f"{_HEAD}/statistics": self.statistics.sums, f"{_HEAD}/step": torch.tensor(self.step)}

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor], device: torch.device) -> Partway:
        """The inverse; the beginning of an epoch where there is nothing of the kind among the tensors."""
        if f"{_HEAD}/step" not in tensors:
            return cls()

        def named(kind: str) -> dict[str, Tensor]:
            head = f"{_HEAD}/{kind}/"
            return {k.removeprefix(head): v for k, v in tensors.items() if k.startswith(head)}

        def there(found: dict[str, Tensor]) -> dict[str, Tensor]:
            return {name: x.to(device) for name, x in found.items()}

        statistics = Statistics(tensors[f"{_HEAD}/statistics"].to(device), there(named("more")))
        seconds = {name: float(x) for name, x in named("seconds").items()}
        return cls(int(tensors[f"{_HEAD}/step"]), there(named("sums")), statistics, seconds)
