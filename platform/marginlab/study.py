"""A study as plain frozen values: datasets, arms, a search budget, a confirmation, a comparison. Nothing here runs anything."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import field
from typing import Any

from marginlab.accumulation import check_chunk
from marginlab.data.feeding import check_cache
from marginlab.data.subset import LABELS
from marginlab.margins import name_of
from marginlab.retrieval import AT_K, METRICS
from marginlab.space import Choice, RandInt, Uniform
from marginlab.training import Training
from marginlab.values import InputError, at_path, later, value, with_path

OBJECTIVES = tuple(f"val/{m}" for m in (*METRICS, *AT_K))
_NAME = re.compile(r"[a-z0-9][a-z0-9._/-]*")


def _check_name(what: str, name: str) -> None:
    if not _NAME.fullmatch(name) or "//" in name or ".." in name:
        raise InputError(
            f"{what} name {name!r}: use small letters, digits, and . _ - / inside (it becomes a folder's name)."
        )


def _at_least(owner: Any, low: float, *names: str) -> None:
    for name in names:
        if getattr(owner, name) < low:
            raise InputError(f"{type(owner).__name__}.{name} must be at least {low}, not {getattr(owner, name)}.")


@value
class Dataset:
    """A raw folder and how it is packed, a phantom that is written first, or recorded learning curves that are replayed."""

    name: str
    root: str | None = None  # the data provider's folder, as delivered
    phantom: Any = None  # OaiPhantom(...), Cxr14Phantom(...) or EyePacsPhantom(...): rendered instead of `root`
    reader: Any = None  # by default the reader of this name
    size: int = 280  # pixels per side, as stored
    label: str = "subject"  # what counts as the same: "subject", "subject-side" or "grade"
    unreadable: float = 0.01  # the largest share of images that may be left out because they cannot be read
    curves: str | None = later(default=None)  # the folder of an export: nothing is trained (marginlab.simulated)

    def check(self) -> None:
        _check_name("Dataset", self.name)
        if "/" in self.name:
            raise InputError(f"Dataset name {self.name!r}: no / in it.")
        if (self.root, self.phantom, self.curves).count(None) != 2:
            raise InputError(
                f"Dataset {self.name!r} needs either root= (the raw folder), phantom= or curves=, and only one of them."
            )
        if self.label not in LABELS:
            raise InputError(f"Dataset {self.name!r}: label must be one of {', '.join(LABELS)}, not {self.label!r}.")
        _at_least(self, 8, "size")


@value
class Resources:
    """What one run gets. Outside every fingerprint: the same numbers come out on other resources.

    ``chunk`` bounds memory by the activations of so many images; for a network with batch normalisation by those in one of its
    stages, and what lies between the stages, of all images (docs/training-input.md). It then takes three to five times as long.
    """

    workers: int = 1
    cpus: float = 1.0  # per worker
    gpus: float | str = "auto"  # per worker, 1 at most; "auto": 1 where the cluster has GPUs, else 0
    launcher: str = "auto"  # "inline" in the trial's own process, "train" as a Ray Train worker group
    cache: str = later(default="auto")  # where pixels wait for a GPU: "device", "host" or "auto" (data/feeding.py)
    chunk: int | None = later(default=None)  # images of a worker in the network at once; None: its share of the batch
    pace: float = later(default=0.0)  # a simulated run waits so many of the seconds that were recorded
    stalled_s: float = later(default=300.0)  # a worker that keeps the others waiting for longer ends their group

    def check(self) -> None:
        _at_least(self, 1, "workers")
        _at_least(self, 0, "pace")
        _at_least(self, 1.0, "stalled_s")
        check_cache("Resources.cache", self.cache)
        check_chunk("Resources.chunk", self.chunk)
        if self.cpus <= 0:
            raise InputError(f"Resources.cpus must be above 0, not {self.cpus:g}.")
        if isinstance(self.gpus, str) and self.gpus != "auto":
            raise InputError(f"Resources.gpus must be a number or 'auto', not {self.gpus!r}.")
        if not isinstance(self.gpus, str) and not 0 <= self.gpus <= 1:  # a second GPU would stand idle
            raise InputError(
                f"Resources.gpus must be from 0 to 1, not {self.gpus:g}: a worker trains on one GPU or a share of it. "
                "For a run on several GPUs say workers=4, gpus=1."
            )
        if self.launcher not in ("auto", "inline", "train"):
            raise InputError(f"Resources.launcher must be 'auto', 'inline' or 'train', not {self.launcher!r}.")
        if self.launcher == "inline" and self.workers > 1:
            raise InputError(
                "Resources(launcher='inline') trains in one process: use launcher='train' for more workers."
            )

    def input(self) -> dict[str, Any]:
        """What ``fit`` is told of it."""
        return {"cache": self.cache, "chunk": self.chunk, "pace": self.pace}


@value
class Arm:
    """One side of the comparison: a training configuration, the space searched around it, and where searches start.

    A search's first trials are the configuration as it stands (the published default) and then those of ``start``.
    """

    name: str
    training: Training
    space: dict = field(default_factory=dict)  # type: ignore[type-arg]  # dotted path -> choice, uniform, ...
    start: tuple = ()  # type: ignore[type-arg]  # further first trials: dicts of dotted path -> value

    def check(self) -> None:
        _check_name("Arm", self.name)
        if not isinstance(self.training, Training):
            raise InputError(f"Arm {self.name!r}: the second argument must be a Training(...), not {self.training!r}.")
        for path, allowed in self.space.items():
            if not isinstance(allowed, (Choice, Uniform, RandInt)):
                raise InputError(
                    f"Arm {self.name!r}: {path!r} must be choice(...), uniform(...) or alike, not {allowed!r}."
                )
            try:
                for bound in allowed.bounds():
                    with_path(self.training, path, bound)
            except InputError as e:
                raise InputError(f"Arm {self.name!r}: {e}") from None
        for params in self.starts():
            for path, v in params.items():
                if path not in self.space:
                    raise InputError(f"Arm {self.name!r}: a start sets {path!r}, which is not in the space.")
                allowed = self.space[path]
                inside = v in allowed.options if isinstance(allowed, Choice) else allowed.low <= v <= allowed.high
                if not inside:
                    raise InputError(f"Arm {self.name!r}: the start {path} = {v} lies outside its space ({allowed}).")
            try:
                self.configured(params, 1)
            except InputError as e:
                raise InputError(f"Arm {self.name!r}: the start {params} does not go together: {e}") from None

    @property
    def slug(self) -> str:
        return self.name.replace("/", "-")

    @property
    def margin_policy(self) -> str:
        return name_of(self.training.margin)

    def starts(self) -> list[dict[str, Any]]:
        default = {path: at_path(self.training, path) for path in self.space}
        return [default] + [{**default, **s} for s in self.start]

    def configured(self, params: dict[str, Any], epochs: int) -> Training:
        training = dataclasses.replace(self.training, epochs=epochs)
        for path, v in params.items():
            training = with_path(training, path, v)
        return training


@value
class Search:
    """How long and how each arm is searched, per dataset: the same budget in epochs for all."""

    epochs_budget: int
    max_epochs: int
    folds: tuple = (0,)  # type: ignore[type-arg]
    replicates: int = 1
    objective: str = "val/map"  # its value at a trial's last epoch decides
    startup_trials: int = 10  # random ones before TPE models the space (the starts count)
    pruner_startup_trials: int = 5  # trials of a search that are never pruned
    pruner_warmup_epochs: int = 1  # epochs after which no trial is judged yet
    max_concurrent: int | None = None
    time_budget_s: float | None = (
        None  # of searching, over all sessions: then no trial begins, and those begun end well
    )
    failed_limit: float = 0.5  # the share of failed trials above which the study stops
    resources: Resources = Resources()

    def check(self) -> None:
        _at_least(self, 1, "epochs_budget", "max_epochs", "replicates", "startup_trials")
        if self.max_concurrent is not None:
            _at_least(self, 1, "max_concurrent")
        if self.time_budget_s is not None and self.time_budget_s <= 0:
            raise InputError(f"Search.time_budget_s must be above 0 seconds, not {self.time_budget_s}.")
        if not 0 <= self.failed_limit <= 1:
            raise InputError(f"Search.failed_limit is a share from 0 to 1, not {self.failed_limit}.")
        _at_least(self, 0, "pruner_startup_trials", "pruner_warmup_epochs")
        if not self.folds or any(f not in range(5) for f in self.folds) or len(set(self.folds)) < len(self.folds):
            raise InputError(f"Search.folds must be different numbers from 0 to 4, not {self.folds}.")
        if self.objective not in OBJECTIVES:
            raise InputError(f"Search.objective must be one of {', '.join(OBJECTIVES)}, not {self.objective!r}.")
        if self.epochs_budget < self.trial_epochs:
            raise InputError(
                f"Search.epochs_budget ({self.epochs_budget}) does not pay for one trial of {self.trial_epochs} epochs."
            )

    @property
    def trial_epochs(self) -> int:
        """What a trial costs that is not pruned."""
        return self.max_epochs * len(self.folds)


@value
class Confirmation:
    """Each search's winner again, on fresh seeds and the first ``folds`` folds; only here is the test split opened.

    ``defaults``: the published default of each arm is trained likewise, as what one has without any search.
    ``incumbents``: on so many further seeds each search's best trial so far, at every point of the search, is trained as
    the search trains, on its folds. What a search has reached is then known without the luck that it selects for.
    """

    seeds: int = 5
    folds: int = 5
    epochs: int | None = None  # by default those of the search
    resources: Resources = Resources()
    defaults: bool = later(default=False)
    incumbents: int = later(default=0)  # seeds

    def check(self) -> None:
        _at_least(self, 1, "seeds", "folds")
        _at_least(self, 0, "incumbents")
        if self.folds > 5:
            raise InputError(f"Confirmation.folds: there are five folds, not {self.folds}.")


@value
class Comparison:
    """What was declared before anything ran: endpoint, contrast (first minus second arm) and margin of equivalence.

    ``confirmatory=True`` says that the answer is meant to settle the question. It is refused where the seeds are too few
    (``reach.Design``); without it the study is exploratory, whatever it finds.
    """

    primary: str = "test/map"
    contrast: tuple | None = None  # type: ignore[type-arg]
    margin: float = 0.01
    confirmatory: bool = later(default=False)

    def check(self) -> None:
        if not self.primary.startswith("test/"):
            raise InputError(f"Comparison.primary must be a test figure such as 'test/map', not {self.primary!r}.")
        if self.contrast is not None and len(self.contrast) != 2:
            raise InputError(f"Comparison.contrast names two arms, not {self.contrast}.")
        _at_least(self, 0, "margin")


@value
class Study:
    """One question, whole: what is compared, on which data, with which budget, and how the answer will be read."""

    name: str
    datasets: tuple  # type: ignore[type-arg]
    arms: tuple  # type: ignore[type-arg]
    search: Search
    confirmation: Confirmation = Confirmation()
    comparison: Comparison = Comparison()
    seed: int = 0
    question: str = ""
    mixed_normalisation: bool = False  # allow search and confirmation to normalise batches of different sizes

    def check(self) -> None:
        _check_name("Study", self.name)
        if "/" in self.name:
            raise InputError(f"Study name {self.name!r}: no / in it.")
        for what, cls in (("datasets", Dataset), ("arms", Arm)):
            items = getattr(self, what)
            if not isinstance(items, tuple) or not items or not all(isinstance(x, cls) for x in items):
                raise InputError(f"Study {self.name!r}: {what} must be a list with at least one {cls.__name__}(...).")
            names = [x.slug if isinstance(x, Arm) else x.name for x in items]
            for name in names:
                if names.count(name) > 1:
                    raise InputError(f"Study {self.name!r}: two {what} are called {name!r}; give each its own name.")
        for metric in (self.search.objective, self.comparison.primary):
            people = [d.name for d in self.datasets if d.label != "grade"]
            if metric.partition("/")[2] in AT_K and people:
                raise InputError(
                    f"Study {self.name!r}: {metric} is measured where grades are to be found (label='grade'), not on {people[0]}."
                )
        for name in self.comparison.contrast or ():
            if name not in [a.name for a in self.arms]:
                known = ", ".join(a.name for a in self.arms)
                raise InputError(f"Study {self.name!r}: the contrast names {name!r}; the arms are {known}.")
        if self.comparison.confirmatory:
            self._check_confirmatory()

    def _check_confirmatory(self) -> None:
        from marginlab.reach import Design  # here: scipy takes long to import, and few studies come this far

        if self.comparison.contrast is None:
            raise InputError(
                f"Study {self.name!r}: Comparison(confirmatory=True) needs a contrast, the two arms it is about."
            )
        design = Design(self.confirmation.seeds, len(self.datasets))
        if not design.confirmatory:
            raise InputError(f"Study {self.name!r} cannot be called confirmatory: {design.why()}.")

    def arm(self, name: str) -> Arm:
        arms: dict[str, Arm] = {a.name: a for a in self.arms}
        return arms[name]

    def dataset(self, name: str) -> Dataset:
        datasets: dict[str, Dataset] = {d.name: d for d in self.datasets}
        return datasets[name]
