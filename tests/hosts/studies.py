"""The study of the tests on hosts: every trial and every run on fresh seeds is a group of two workers, one at a time."""

from __future__ import annotations

import dataclasses

from marginlab.study import Comparison, Confirmation, Resources, Search
from tests.cluster.studies import killed

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
