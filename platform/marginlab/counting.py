"""What can be counted before a study has done anything: images of each dataset, trials that a budget pays for."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from marginlab.data.cxr14 import CXR14
from marginlab.data.eyepacs import EyePACS, EyePACSByImage
from marginlab.data.oai import OAI
from marginlab.data.packed import PackedDataset
from marginlab.data.phantom import count
from marginlab.data.raw import conform
from marginlab.data.readers import READERS
from marginlab.data.readers import reader as reader_named
from marginlab.data.splits import FOLDS, with_folds
from marginlab.fresh import covers
from marginlab.plan import Plan
from marginlab.study import Dataset, Search
from marginlab.values import InputError
from marginlab.workspace import Workspace

# What the published sets have, (training split, test split), for a plan that is made before they are here. ChestX-ray14: the
# official lists. EyePACS: 35,126 images, a fifth of them for the test. OAI: about 40,000 knees, of which the site that is the
# test is taken to have a fifth.
PUBLISHED: dict[type, tuple[int, int]] = {OAI: (32_000, 8_000), CXR14: (86_524, 25_596), EyePACS: (28_101, 7_025)}
PUBLISHED[EyePACSByImage] = PUBLISHED[EyePACS]


@dataclass(frozen=True)
class Counts:
    """Images by what they serve, for a run on fold 0. The other folds are as large, up to one subject's images."""

    train: int
    validation: int
    test: int
    channels: int = 1
    graded: bool = False  # grades are to be found, in the images that were trained on
    assumed: bool = False  # not counted: the images are not here

    @property
    def images(self) -> int:
        return self.train + self.validation + self.test

    @property
    def opened(self) -> int:
        """Images that a network embeds when the test split is opened: queries and gallery."""
        return self.images if self.graded else self.test

    @property
    def ranked(self) -> float:
        """Pairs of a query and a gallery image then. Where both are parts of the test split, at most a quarter of its pairs."""
        return self.test * (self.train + self.validation) if self.graded else self.test**2 / 4


def assumed(dataset: Dataset, workspace: Workspace) -> Counts | None:
    """What a published set has that is not here; None of one that is, or that nothing is known of."""
    if dataset.root is None or workspace.packed(dataset).exists() or workspace.raw(dataset).exists():
        return None
    reader = type(dataset.reader or READERS.get(dataset.name))
    if reader not in PUBLISHED:
        return None
    train, test = PUBLISHED[reader]
    channels = 3 if reader in (EyePACS, EyePACSByImage) else 1
    return Counts(train - train // FOLDS, train // FOLDS, test, channels, dataset.label == "grade", assumed=True)


def counts(dataset: Dataset, workspace: Workspace) -> Counts:
    """From the packed dataset; else from the raw folder's tables; else from the phantom's value; else as published (:data:`PUBLISHED`).

    Decodes and writes nothing.

    Raises:
        InputError: the raw folder cannot be read. It names neither files nor people, whatever the reader had to say.
    """
    if dataset.curves is not None:
        raise InputError(f"dataset {dataset.name!r} replays recorded curves: nothing is trained")
    if not_here := assumed(dataset, workspace):
        return not_here
    if workspace.packed(dataset).exists():
        packed = PackedDataset.open(workspace.packed(dataset))
        return _of(packed.manifest, packed.channels, dataset)
    raw, graded = workspace.raw(dataset), dataset.label == "grade"
    if dataset.phantom is not None and not raw.exists():
        train, test = count(dataset.phantom)
        return Counts(train - train // FOLDS, train // FOLDS, test, type(dataset.phantom).channels, graded)
    try:
        table = (dataset.reader or reader_named(dataset.name)).read(raw)
        return _of(with_folds(conform(table.rows, str(raw)), str(raw), table.leaks), table.channels, dataset)
    except Exception:
        raise InputError(
            f"the images of dataset {dataset.name!r} cannot be counted (marginlab prepare names the reason)"
        ) from None


def _of(rows: pl.DataFrame, channels: int, dataset: Dataset) -> Counts:
    test = int((rows["split"] == "test").sum())
    validation = int((rows["fold"] == 0).sum())
    return Counts(len(rows) - test - validation, validation, test, channels, dataset.label == "grade")


def expected_trials(rules: Search, epochs: int, begun: int = 0) -> float:
    """Trials that so many epochs of a search's budget pay for, after ``begun`` ones.

    Half of those that may be pruned are taken to be, at the first epoch where that can happen.
    """
    whole = max(0, min(rules.pruner_startup_trials - begun, epochs // rules.trial_epochs))
    return whole + (epochs - whole * rules.trial_epochs) / ((rules.trial_epochs + _pruned_epochs(rules)) / 2)


def most_trials(rules: Search) -> int:
    """Trials of a whole search, were all pruned at once that may be."""
    whole = min(rules.pruner_startup_trials, rules.epochs_budget // rules.trial_epochs)
    return whole + (rules.epochs_budget - whole * rules.trial_epochs) // _pruned_epochs(rules)


def most_incumbents(plan: Plan, complete: int = 0, epochs: int | None = None) -> int:
    """Runs of one search's incumbents, did every trial that is completed lead for a while.

    Args:
        complete: trials completed so far.
        epochs: what is left to search; by default the whole budget.
    """
    rules, confirmation = plan.study.search, plan.study.confirmation
    further = (rules.epochs_budget if epochs is None else epochs) // rules.trial_epochs
    trials = complete + further - covers(plan)  # where confirmation covers the search, it has the winner
    return max(0, trials) * confirmation.incumbents * len(rules.folds)


def expected_incumbents(plan: Plan, complete: int = 0, epochs: int | None = None) -> float:
    """Runs of one search's incumbents that are still to come: of n values in any order, 1 + 1/2 + ... + 1/n are the highest so far.

    Half of the trials that may be pruned are taken to be, so they are not completed.
    """
    rules, confirmation = plan.study.search, plan.study.confirmation
    epochs = rules.epochs_budget if epochs is None else epochs
    trials = expected_trials(rules, epochs, complete)
    whole = max(0, min(rules.pruner_startup_trials - complete, epochs // rules.trial_epochs))
    n = complete + whole + round((trials - whole) / 2)
    served = min(1 + confirmation.defaults, n) if covers(plan) else 0  # the winner, and the default that leads at first
    return max(0.0, _leaders(n) - max(_leaders(complete), served)) * confirmation.incumbents * len(rules.folds)


def _leaders(n: int) -> float:
    return sum(1 / i for i in range(1, n + 1))


def _pruned_epochs(rules: Search) -> int:
    """The least that a pruned trial costs."""
    return min(rules.trial_epochs, rules.pruner_warmup_epochs + 1)
