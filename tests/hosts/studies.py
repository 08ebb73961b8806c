"""The study of the tests on hosts: every trial and every run on fresh seeds is a group of two workers, one at a time."""

from __future__ import annotations

import dataclasses
import time

from torch import Tensor, nn

from marginlab.networks import SmallNetwork
from marginlab.study import Arm, Comparison, Confirmation, Resources, Search
from marginlab.values import value
from tests.cluster.studies import killed, tiny

SLOW_S = 1.0  # a batch

STALLED_S = 20.0
# Both workers of a group fit on one host of two CPUs: a group is lost as a whole, and moves to the other host.
together = dataclasses.replace(
    killed,
    name="together",
    search=Search(
        epochs_budget=12,
        max_epochs=8,
        startup_trials=1,
        pruner_startup_trials=1,
        max_concurrent=1,
        resources=Resources(workers=2, launcher="train", stalled_s=STALLED_S),
    ),
    confirmation=Confirmation(seeds=1, folds=1, epochs=8, resources=Resources(workers=2, stalled_s=STALLED_S)),
    comparison=Comparison(),
)


class _Waiting(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        if self.training:
            time.sleep(SLOW_S)
        return images


@value
class Slow:
    """A network whose batches take a second, so that there is a time between two of them."""

    def build(self, channels: int) -> nn.Module:
        return nn.Sequential(_Waiting(), SmallNetwork(width=16, dim=16).build(channels))


slow = dataclasses.replace(
    together,
    name="slow",
    arms=[Arm("slow", dataclasses.replace(tiny, network=Slow()))],
    search=Search(epochs_budget=4, max_epochs=4, max_concurrent=1, resources=Resources(launcher="train")),
    confirmation=Confirmation(seeds=1, folds=1, epochs=1),
)
