"""How fast a study trains: by its earlier runs where there are some, else by two measured batches of each arm.

A pace is that of one worker that works alone; a phase says how much slower each of several is. So what was measured in a
search serves the confirmation too.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import torch

from marginlab.cluster.machines import Machines
from marginlab.cluster.preflight import concurrency, gpus_per_worker, launcher
from marginlab.counting import Counts
from marginlab.data.sampler import steps_per_epoch
from marginlab.disk import checkpoint_bytes
from marginlab.files import read_json, read_lines
from marginlab.networks.weights import unweighted
from marginlab.study import Resources, Study
from marginlab.training import Training, probe
from marginlab.values import fingerprint

# Measured on 2 CPU cores, with the demo.
CROWDING = 0.25  # so much longer does a core take while all others train too
SHARING = 1.4  # so much longer than half of it do two workers take for a batch: gathers, waiting for the slower one
EPOCH_S = 0.02  # rows, and asking the registrar
WRITTEN_PER_S = 300e6  # bytes of a checkpoint, flushed to the disk

TRAINING = ("data", "augment", "forward", "loss", "backward")  # the steps of a row that grow with the batches
KEPT_RUNS = 40  # of a dataset, arm and kind: more say nothing new
EARLIER, PROBED = "earlier runs", "two measured batches per arm"


@dataclass(frozen=True)
class Phase:
    """Search or confirmation: what a run gets, and how many run at once."""

    kind: str  # of its runs: "trial" or "confirmation"
    workers: int
    cpus: float  # per worker
    gpus: float  # per worker
    at_once: int
    there: float  # CPUs in all
    inline: bool  # in the trial's own process, not in a worker group

    @property
    def threads(self) -> int:
        return max(1, int(self.cpus))

    @property
    def crowding(self) -> float:
        """How much slower a worker is than alone. GPUs do not crowd one another; one that is shared is shared evenly."""
        if self.gpus:
            return max(1.0, 1.0 / self.gpus)
        wanted, room = self.at_once * self.workers * self.threads, self.there - self.threads
        busy = min(1.0, (wanted - self.threads) / room) if room > 0 else 0.0
        return (1.0 + CROWDING * busy) * max(1.0, wanted / self.there)

    @property
    def share(self) -> float:
        """Of what a batch takes one worker, what it takes several together."""
        return SHARING / self.workers if self.workers > 1 else 1.0


def phases(study: Study, machines: Machines) -> tuple[Phase, Phase]:
    """Search and confirmation. Raises InputError where not even one run of them fits."""
    search, confirmation = study.search, study.confirmation
    return (
        _phase("Search", "trial", search.resources, machines, search.max_concurrent),
        _phase("Confirmation", "confirmation", confirmation.resources, machines, None),
    )


def _phase(what: str, kind: str, r: Resources, machines: Machines, most: int | None) -> Phase:
    fit = concurrency(what, r, machines)
    gpus = gpus_per_worker(r, machines)
    inline = kind == "trial" and launcher(r, machines) == "inline"
    return Phase(kind, r.workers, r.cpus, gpus, min(fit, most or fit), machines.total("CPU"), inline)


@dataclass(frozen=True)
class Pace:
    """Seconds of one worker that works alone."""

    batch_s: float
    image_s: float  # per image embedded
    pair_s: float  # per pair of images ranked
    epoch_s: float  # per epoch: what does not depend on batches and images
    source: str  # EARLIER or PROBED

    def evaluation(self, images: int, pairs: float, phase: Phase) -> float:
        """Seconds to embed and rank in this phase. The workers share the embedding; one of them ranks."""
        return phase.crowding * (phase.share * images * self.image_s + pairs * self.pair_s)

    def training(self, batches: int, phase: Phase) -> float:
        return phase.crowding * phase.share * batches * self.batch_s


class Unmeasurable(Exception):
    """There is no pace. The message is a sentence."""


class Paces:
    """The pace of each (dataset, arm), measured when it is first asked for. ``folder``: the study's."""

    def __init__(self, study: Study, folder: Path, counted: dict[str, Counts], both: tuple[Phase, Phase]) -> None:
        self.study, self.counted, self.both = study, counted, both
        self.sources: set[str] = set()  # of the paces that were asked for
        self._rows = read_earlier(folder)
        self._probed: dict[str, Pace] = {}

    def of(self, dataset: str, arm: str, kind: str) -> Pace:
        """Earlier runs of the same kind come first, then those of the other one if it trains on the same kind of device."""
        pace = self._earlier(dataset, arm, kind) or self._probe(dataset, arm, self._phase(kind))
        self.sources.add(pace.source)
        return pace

    def _phase(self, kind: str) -> Phase:
        return next(p for p in self.both if p.kind == kind)

    def _earlier(self, dataset: str, arm: str, kind: str) -> Pace | None:
        asked = self._phase(kind)
        for known in sorted(self.both, key=lambda p: p.kind != kind):
            rows = self._rows.get((dataset, arm, known.kind))
            if rows is not None and bool(known.gpus) == bool(asked.gpus):
                return rows.pace(self.counted[dataset], self.study.arm(arm).training.batch_size, known)
        return None

    def _probe(self, dataset: str, arm: str, phase: Phase) -> Pace:
        training, size = self.study.arm(arm).training, self.study.dataset(dataset).size
        channels = self.counted[dataset].channels
        same = fingerprint([training, size, channels, phase.threads, bool(phase.gpus)])
        if same not in self._probed:
            if phase.gpus and not torch.cuda.is_available():
                raise Unmeasurable(
                    f"{arm} trains on GPUs on {dataset}, this machine has none to measure with, and there are no earlier runs"
                )
            self._probed[same] = self._measured(training, channels, size, phase, arm)
        return self._probed[same]

    def _measured(self, training: Training, channels: int, size: int, phase: Phase, arm: str) -> Pace:
        images = max(c.validation for c in self.counted.values())
        device = "cuda" if phase.gpus else "cpu"
        try:
            p = probe(unweighted(training), channels, size, images=images, threads=phase.threads, device=device)
        except Exception as e:  # diverging, out of memory, or a fault of a user's own loss: its trials will say so
            raise Unmeasurable(f"{arm} could not be measured: {(str(e).splitlines() or [type(e).__name__])[0]}") from e
        epoch_s = EPOCH_S + checkpoint_bytes(training, channels) / WRITTEN_PER_S
        return Pace(p.batch_s, p.image_s, p.pair_s, epoch_s, PROBED)


@dataclass(frozen=True)
class Rows:
    """Of earlier runs of one dataset, arm and kind: medians over their epochs, in seconds."""

    train_s: float
    evaluation_s: float
    rest_s: float  # writing, and what no step of the row names

    def pace(self, counts: Counts, batch_size: int, phase: Phase) -> Pace:
        """The evaluation counts as embedding alone: it is most of it."""
        shared = phase.crowding * phase.share
        batch_s = self.train_s / (shared * steps_per_epoch(counts.train, batch_size))
        return Pace(batch_s, self.evaluation_s / (shared * max(1, counts.validation)), 0.0, self.rest_s, EARLIER)


def read_earlier(folder: Path) -> dict[tuple[str, str, str], Rows]:
    """By (dataset, arm, kind). An epoch counts where the row before it is there, so that its whole time is known."""
    runs: defaultdict[tuple[str, str, str], list[Path]] = defaultdict(list)
    for record in sorted(folder.glob("runs/**/run.json")):
        labels = read_json(record)["labels"]
        runs[labels["dataset"], labels["arm"], labels["kind"]].append(record.with_name("epochs.jsonl"))
    out = {}
    for place, files in runs.items():
        epochs = [e for file in files[-KEPT_RUNS:] for e in _epochs(read_lines(file))]
        if epochs:
            out[place] = Rows(*(median(column) for column in zip(*epochs, strict=True)))
    return out


def _epochs(rows: list[dict[str, Any]]) -> list[tuple[float, float, float]]:
    """(training, evaluation, rest) of each epoch from the first."""
    out = []
    for before, row in pairwise(rows):
        if row["epoch"] == before["epoch"] + 1:
            train = sum(row.get(f"time/{step}_s", 0.0) for step in TRAINING)
            evaluation = row.get("time/evaluation_s", 0.0)
            out.append((train, evaluation, max(0.0, row["time"] - before["time"] - train - evaluation)))
    return out
