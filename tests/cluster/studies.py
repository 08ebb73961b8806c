"""Studies for the end-to-end tests: every part of the demo, in seconds."""

import dataclasses
import math
import time
from pathlib import Path
from typing import ClassVar

import polars as pl
import torch
from torch import Tensor, nn

from marginlab.augment import Augment
from marginlab.data.oai import OAI
from marginlab.data.phantom import OaiPhantom
from marginlab.data.raw import RawTable
from marginlab.losses import AdaTriplet, LossTerms, Pairs
from marginlab.margins import AutoMargin, FixedMargin, Margin
from marginlab.networks import SmallNetwork
from marginlab.space import choice, uniform
from marginlab.study import Arm, Comparison, Confirmation, Dataset, Resources, Search, Study
from marginlab.training import Training
from marginlab.values import value

tiny = Training(network=SmallNetwork(width=16, dim=16), augment=Augment(crop=32), batch_size=32, lr=1e-3)

# The second trial of "fixed" has a learning rate that makes the loss NaN.
inline = Study(
    name="inline",
    datasets=[Dataset("oai", phantom=OaiPhantom(subjects=40, size=36), size=36)],
    arms=[
        Arm("auto", dataclasses.replace(tiny, margin=AutoMargin()), space={"margin.k_delta": choice([1.0, 2.0, 4.0])}),
        Arm(
            "fixed",
            dataclasses.replace(tiny, margin=FixedMargin()),
            space={"margin.epsilon": uniform(0.05, 0.6), "lr": choice([1e-3, 1e30])},
            start=[{"lr": 1e30}],
        ),
    ],
    search=Search(
        epochs_budget=8,
        max_epochs=2,
        startup_trials=2,
        pruner_startup_trials=1,
        pruner_warmup_epochs=0,
        failed_limit=1.0,
    ),
    confirmation=Confirmation(seeds=2, folds=2, epochs=2, resources=Resources(workers=2)),
    comparison=Comparison(contrast=("auto", "fixed"), margin=0.01),
)


@value
class Owned:
    """A network of the study file's own."""

    dim: int = 16

    def build(self, channels: int) -> nn.Module:
        return SmallNetwork(width=16, dim=self.dim).build(channels)


LAST_MONTHS = 90.0


@value
class OwnReader:
    """A reader of the study file's own: OAI's, without its last visits."""

    def read(self, root: Path) -> RawTable:
        table = OAI().read(root)
        return dataclasses.replace(table, rows=table.rows.filter(pl.col("months") < LAST_MONTHS))


# Every trial is a Ray Train worker group of two. The first learns, the second leaves the network as it is and is pruned.
nested = dataclasses.replace(
    inline,
    name="nested",
    datasets=[Dataset("oai", phantom=OaiPhantom(subjects=40, size=36), size=36, reader=OwnReader())],
    arms=[
        Arm(
            "fixed",
            dataclasses.replace(tiny, network=Owned(), margin=FixedMargin(), lr=0.1),
            space={"lr": choice([0.1, 1e-12])},
            start=[{"lr": 1e-12}],
        )
    ],
    search=Search(
        epochs_budget=8,
        max_epochs=4,
        startup_trials=9,
        pruner_startup_trials=1,
        max_concurrent=1,  # so that there is a finished trial to judge the second by
        resources=Resources(workers=2, launcher="train"),
    ),
    # The default wins, so it is confirmed already; one epoch is no measure of four, so the winner is an incumbent too.
    confirmation=Confirmation(seeds=1, folds=1, epochs=1, resources=Resources(workers=2), defaults=True, incumbents=1),
    comparison=Comparison(),
)

# One trial at a time, so that an interrupted study can be held against an undisturbed one.
killed = dataclasses.replace(
    inline,
    name="killed",
    arms=[
        Arm(
            "fixed",
            dataclasses.replace(tiny, margin=FixedMargin()),
            space={"margin.epsilon": uniform(0.05, 0.6), "loss.lam": uniform(0.2, 2)},
        )
    ],
    search=Search(epochs_budget=6, max_epochs=3, startup_trials=1, pruner_startup_trials=1, max_concurrent=1),
    confirmation=Confirmation(seeds=2, folds=1, epochs=2, resources=Resources(cpus=1.6)),  # one group, one thread
    comparison=Comparison(),
)


class _Waiting(nn.Module):
    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds

    def forward(self, images: Tensor) -> Tensor:
        if self.training:
            time.sleep(self.seconds)
        return images


@value
class Slow:
    """The usual network, whose batches take a while, so that there is a time to do something to them."""

    batch_s: float

    def build(self, channels: int) -> nn.Module:
        return nn.Sequential(_Waiting(self.batch_s), SmallNetwork(width=16, dim=16).build(channels))


# The same, with a second for an epoch.
submitted = dataclasses.replace(
    killed,
    name="submitted",
    confirmation=dataclasses.replace(killed.confirmation, seeds=1),
    arms=[
        dataclasses.replace(killed.arms[0], training=dataclasses.replace(killed.arms[0].training, network=Slow(0.15)))
    ],
)

# Its incumbents and its published default are trained on fresh seeds too, whoever won.
again = dataclasses.replace(
    killed,
    name="again",
    search=dataclasses.replace(killed.search, epochs_budget=4, max_epochs=2),
    confirmation=Confirmation(seeds=1, folds=1, epochs=1, defaults=True, incumbents=1),
)


@value
class Faulty:
    """AdaTriplet that can be made to fail in its first step."""

    fault: str = "none"
    slots: ClassVar[tuple[str, ...]] = ("epsilon", "beta")

    def __call__(self, pairs: Pairs, margin: Margin) -> LossTerms:
        if self.fault == "raises":
            raise ValueError("a fault of the loss")
        if self.fault == "memory":
            torch.empty(1 << 60)
        terms = AdaTriplet()(pairs, margin)
        return dataclasses.replace(terms, total=terms.total * math.nan) if self.fault == "nan" else terms


# Its first trials are well, raise, return NaN and run out of memory.
faulty = dataclasses.replace(
    killed,
    name="faulty",
    arms=[
        Arm(
            "faulty",
            dataclasses.replace(tiny, loss=Faulty(), margin=FixedMargin()),
            space={"loss.fault": choice(["none", "raises", "nan", "memory"])},
            start=[{"loss.fault": f} for f in ("raises", "nan", "memory")],
        )
    ],
    search=Search(epochs_budget=4, max_epochs=1, startup_trials=9, max_concurrent=1, failed_limit=1.0),
    confirmation=Confirmation(seeds=1, folds=1, epochs=1),
)
