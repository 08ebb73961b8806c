"""How long a study will still take, step by step; and at its end, how that compares with the truth.

Images are counted (counting.py), what is left is read from the study's folder (remaining.py), the pace of training is
measured (pace.py), and the platform's own time was: the constants below, on 2 CPU cores. Prints nothing, writes nothing.

    an epoch    batches x seconds per batch + evaluation + writing
    a run       its epochs, the evaluation of the untrained network, and where it is opened the test split
    a step      its runs over the runs at once, and what the platform takes
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from marginlab.cluster.machines import Machines
from marginlab.counting import Counts, counts, expected_incumbents, expected_trials
from marginlab.data.sampler import steps_per_epoch
from marginlab.data.store import INLINE
from marginlab.pace import EARLIER, PROBED, Paces, Phase, Unmeasurable, phases
from marginlab.plan import OPENS_TEST, Plan, SearchKey
from marginlab.remaining import Remaining, remaining
from marginlab.study import Dataset, Study
from marginlab.values import InputError
from marginlab.watching import STEPS
from marginlab.workspace import Workspace

# All measured on 2 CPU cores.
RAY_START_S = 15.0
WORKER_START_S = 9.0  # until the first trials train: processes start and import torch
GROUP_START_S = 24.0  # until a worker group trains, the end of what ran before it included
TRIAL_S = 0.2  # between two trials of one process: registrar, Tune, a new network
RUN_S = 0.15  # per run of a worker group: opening it, the test split's scores and their writing
TRACKING_S, TRACKED_RUN_S = 1.0, 0.005  # the last sync with MLflow, champions
REPORT_S, REPORTED_RUN_S = 2.2, 0.005
RENDER_PIXEL_S = 1e-6  # per pixel of a phantom's image; one process
DECODE_S, DECODE_PIXEL_S = 4e-4, 1.1e-8  # per phantom's image, and per pixel of it; shared by all cores
RAW_PIXEL_S = 2.6e-8  # per pixel of images as large as real ones: PNG 2.4e-8, JPEG in colour 3e-8
DECODERS_START_S = 0.8  # per dataset, where processes decode it
RAW_PIXELS = 1024**2  # of a real radiograph, whose size is not looked up,
RAW_FUNDUS_PIXELS = 3000 * 2000  # or photograph


@dataclass(frozen=True)
class Estimate:
    """Seconds left by step (``watching.STEPS``). A step in which nothing is left is absent; where ``unknown``, all are."""

    steps: dict[str, float]
    source: str = ""  # where the pace of training comes from
    unknown: str = ""  # why there is no estimate
    counted: dict[str, Counts] = field(default_factory=dict)  # by dataset; empty where they could not be counted

    @property
    def total(self) -> float:
        return sum(self.steps.values())

    def without(self, *steps: str) -> Estimate:
        """What is left once these steps are done."""
        return dataclasses.replace(self, steps={s: v for s, v in self.steps.items() if s not in steps})

    def sentence(self) -> str:
        """For a person who waits; empty where nothing is left to train."""
        if self.unknown or not self.source:
            return self.unknown
        parts = ", ".join(f"{s} {duration(self.steps[s])}" for s in ("search", "confirmation") if s in self.steps)
        return f"About {duration(self.total)} are left ({parts}), from {self.source}."


def estimate(plan: Plan, workspace: Workspace, machines: Machines, folder: Path) -> Estimate:
    """Takes about a second per arm where no run has been made yet.

    Args:
        machines: what there is to train on. It must suffice (``preflight``).
        folder: the study's; it need not exist.
    """
    study, left = plan.study, remaining(plan, folder)
    both = phases(study, machines)
    counted: dict[str, Counts] = {}
    try:
        counted = {d.name: counts(d, workspace) for d in study.datasets}
        model = _Model(plan, left, counted, Paces(study, folder, counted, both), both)
        steps = {"search": model.search(), "confirmation": model.confirmation()}
    except (Unmeasurable, InputError) as e:
        return Estimate({}, unknown=f"There is no estimate: {str(e).rstrip('.')}.", counted=counted)
    runs = model.runs()
    steps |= {"phantoms": _rendering(study, workspace, counted), "prepare": _preparing(study, workspace, counted)}
    steps |= {
        "ray": RAY_START_S,
        "tracking": TRACKING_S + runs * TRACKED_RUN_S,
        "report": REPORT_S + runs * REPORTED_RUN_S,
    }
    return Estimate({s: steps[s] for s in STEPS if steps.get(s)}, _sources(model.paces.sources), counted=counted)


def against(estimate: Estimate, truth: Mapping[str, float]) -> str:
    """One line for a study's end. ``truth``: seconds by step; steps that were not estimated do not count."""
    took = {step: truth.get(step, 0.0) for step in estimate.steps}
    if estimate.unknown:
        return f"{estimate.unknown} It took {duration(sum(truth.values()))}."
    if not {"search", "confirmation"} & set(estimate.steps):
        return ""  # nothing was left to train
    large = [s for s in took if max(took[s], estimate.steps[s]) >= 0.1 * max(estimate.total, sum(took.values()))]
    parts = ", ".join(f"{s} {_amount(estimate.steps[s])} -> {_amount(took[s])}" for s in large)
    return f"Estimated {duration(estimate.total)}, took {duration(sum(took.values()))} ({parts})."


def duration(seconds: float) -> str:
    """In one unit, as exact as an estimate deserves."""
    for limit, per, unit in ((600, 1, "s"), (7200, 60, "min")):
        if seconds < limit:
            return f"{seconds / per:.0f} {unit}"
    return f"{seconds / 3600:.1f} h" if seconds < 48 * 3600 else f"{seconds / 86400:.1f} days"


def _amount(seconds: float) -> str:
    """Seconds, the unit that goes without saying."""
    return f"{seconds:.0f}" if seconds < 600 else duration(seconds)


@dataclass(frozen=True)
class _Model:
    plan: Plan
    left: Remaining
    counted: dict[str, Counts]
    paces: Paces
    both: tuple[Phase, Phase]

    def search(self) -> float:
        rules, phase = self.plan.study.search, self.both[0]
        todo = {key: expected_trials(rules, s.left, s.trials) for key, s in self.left.searches.items() if s.left}
        if not todo:
            return 0.0
        phase = _narrowed(phase, math.ceil(sum(todo.values())))
        start = TRIAL_S if phase.inline else GROUP_START_S
        seconds = 0.0
        for key, trials in todo.items():
            cost = self._cost(key, phase)
            seconds += self.left.searches[key].left * cost.epoch_s
            seconds += trials * (start + len(rules.folds) * cost.evaluation_s)
        seconds = seconds / phase.at_once + (WORKER_START_S if phase.inline else 0.0)
        if rules.time_budget_s is None:
            return seconds
        longest = max(
            start + rules.trial_epochs * self._cost(key, phase).epoch_s for key in todo
        )  # those begun end well
        return min(seconds, max(0.0, rules.time_budget_s - self.left.searched_s) + longest)

    def confirmation(self) -> float:
        fresh = [(key, kind, runs) for key in self.plan.searches() for kind, runs in self.left.fresh(key)]
        to_come = self._to_come()
        todo = sum(len(runs) for _, _, runs in fresh) + round(sum(to_come.values()))
        if not todo:
            return 0.0
        phase = _narrowed(self.both[1], todo)
        seconds = sum(self._fresh(kind, key, runs, phase) for key, kind, runs in fresh)
        seconds += sum(n * self._fresh("incumbent", key, (None,), phase) for key, n in to_come.items() if n)
        return GROUP_START_S + seconds / phase.at_once

    def _fresh(self, kind: str, key: SearchKey, runs: tuple[int | None, ...], phase: Phase) -> float:
        """Seconds of these runs, one after another. ``runs``: the last epoch of each, None where it has not begun."""
        if not runs:
            return 0.0
        cost, epochs = self._cost(key, phase), self.plan.epochs(kind)
        test = cost.test_s if kind in OPENS_TEST else 0.0
        begin = (cost.evaluation_s if done is None else 0.0 for done in runs)
        return sum((epochs - (done or 0)) * cost.epoch_s for done in runs) + sum(begin) + len(runs) * (test + RUN_S)

    def _to_come(self) -> dict[SearchKey, float]:
        """Runs of incumbents that the searches do not have yet."""
        searches = self.left.searches.items()
        return {key: expected_incumbents(self.plan, s.complete, s.left) for key, s in searches if s.left}

    def runs(self) -> float:
        """Of the whole study, those done included."""
        study, search = self.plan.study, self.plan.study.search
        trials = len(search.folds) * expected_trials(search, search.epochs_budget)
        defaults = len(study.datasets) * len(study.arms) * self.left.planned * study.confirmation.defaults
        return len(self.plan.searches()) * (trials + self.left.planned + expected_incumbents(self.plan)) + defaults

    def _cost(self, key: SearchKey, phase: Phase) -> _Cost:
        pace, c = self.paces.of(key.dataset, key.arm, phase.kind), self.counted[key.dataset]
        batches = steps_per_epoch(c.train, self.plan.study.arm(key.arm).training.batch_size)
        evaluation = pace.evaluation(c.validation, c.validation**2, phase)
        test = pace.evaluation(c.opened, c.ranked, phase)
        return _Cost(pace.training(batches, phase) + evaluation + pace.epoch_s, evaluation, test)


@dataclass(frozen=True)
class _Cost:
    """Seconds, as one of several runs at once."""

    epoch_s: float
    evaluation_s: float
    test_s: float


def _narrowed(phase: Phase, runs: int) -> Phase:
    return dataclasses.replace(phase, at_once=min(phase.at_once, runs))


def _rendering(study: Study, workspace: Workspace, counted: dict[str, Counts]) -> float:
    todo = [d for d in _unprepared(study, workspace) if d.phantom is not None and not workspace.raw(d).exists()]
    return sum((counted[d.name].images * RENDER_PIXEL_S * d.phantom.size**2 for d in todo), 0.0)


def _preparing(study: Study, workspace: Workspace, counted: dict[str, Counts]) -> float:
    seconds = 0.0
    for d in _unprepared(study, workspace):
        images = counted[d.name].images
        many = images >= INLINE
        raw_s = RAW_PIXEL_S * (RAW_PIXELS if counted[d.name].channels == 1 else RAW_FUNDUS_PIXELS)
        decoding = images * (raw_s if d.phantom is None else DECODE_S + DECODE_PIXEL_S * d.phantom.size**2)
        seconds += DECODERS_START_S + decoding / (os.cpu_count() or 1) if many else decoding
    return seconds


def _unprepared(study: Study, workspace: Workspace) -> list[Dataset]:
    return [d for d in study.datasets if not workspace.packed(d).exists()]


def _sources(used: set[str]) -> str:
    return " and ".join(s for s in (EARLIER, PROBED) if s in used)
