"""The study of the tests on hosts: every trial and every run on fresh seeds is a group of two workers, one at a time."""

from __future__ import annotations

import dataclasses
import os
import time
from contextlib import suppress
from pathlib import Path

from torch import Tensor, nn

from marginlab import distributed
from marginlab.margins import FixedMargin
from marginlab.networks import SmallNetwork
from marginlab.space import uniform
from marginlab.study import Arm, Comparison, Confirmation, Resources, Search
from marginlab.values import value
from tests.cluster.studies import killed, tiny

BRISK_S = 0.12  # a batch: an epoch lasts most of a second, so that there is a time to strike it
STALLED_S = 15.0
LINGER_S = 3.0


def linger(home: Path) -> Path:
    """The file for which batches are slow, while it is there."""
    return home / "linger"


def word(home: Path, rank: int) -> Path:
    """The file by which a rank is told to hang."""
    return home / f"hang-{rank}"


class _Obedient(nn.Module):
    """Hangs in its own code where it is told to, for ever, and once: the word is gone when it is heard."""

    def forward(self, images: Tensor) -> Tensor:
        if self.training and distributed.is_distributed():
            time.sleep(BRISK_S)
            with suppress(FileNotFoundError):
                word(Path(os.environ["HOME"]), distributed.rank()).unlink()
                while True:
                    time.sleep(1)
        return images


@value
class Obedient:
    """The tests' usual network, which can be told to hang."""

    def build(self, channels: int) -> nn.Module:
        return nn.Sequential(_Obedient(), SmallNetwork(width=16, dim=16).build(channels))


# Both workers of a group fit on one host of two CPUs: a group is lost as a whole, and moves to the other host.
together = dataclasses.replace(
    killed,
    name="together",
    arms=[
        Arm(
            "fixed",
            dataclasses.replace(tiny, network=Obedient(), margin=FixedMargin()),
            space={"margin.epsilon": uniform(0.05, 0.6), "loss.lam": uniform(0.2, 2)},
        )
    ],
    search=Search(
        epochs_budget=12,
        max_epochs=6,
        startup_trials=1,
        pruner_startup_trials=1,
        max_concurrent=1,
        resources=Resources(workers=2, launcher="train", stalled_s=STALLED_S),
    ),
    confirmation=Confirmation(seeds=1, folds=1, epochs=10, resources=Resources(workers=2, stalled_s=STALLED_S)),
    comparison=Comparison(),
)


SOAK_H = float(os.environ.get("SOAK_H", "0.333"))  # hours of faults (test_soak.py)
lasting = dataclasses.replace(
    together,
    name="lasting",
    search=dataclasses.replace(together.search, epochs_budget=12 * min(1 + round(5 * SOAK_H), 6)),
    confirmation=dataclasses.replace(together.confirmation, seeds=2),
)


class _Lingering(nn.Module):
    """A batch takes seconds while the file is there: whatever is to happen within an epoch then does, on a fast machine too."""

    def forward(self, images: Tensor) -> Tensor:
        if self.training and linger(Path(os.environ["HOME"])).exists():
            time.sleep(LINGER_S)
        return images


@value
class Lingering:
    """The tests' usual network, which can be told to linger."""

    def build(self, channels: int) -> nn.Module:
        return nn.Sequential(_Lingering(), SmallNetwork(width=16, dim=16).build(channels))


lingering = dataclasses.replace(
    together,
    name="lingering",
    arms=[Arm("lingering", dataclasses.replace(tiny, network=Lingering()))],
    search=Search(epochs_budget=4, max_epochs=4, max_concurrent=1, resources=Resources(launcher="train")),
    confirmation=Confirmation(seeds=1, folds=1, epochs=1),
)
