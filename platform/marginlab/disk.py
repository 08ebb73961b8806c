"""Bytes that a study writes, known before it does."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from marginlab.counting import Counts, expected_incumbents, expected_trials, most_incumbents, most_trials
from marginlab.networks import build_seeded
from marginlab.networks.weights import unweighted
from marginlab.plan import Plan
from marginlab.training import Training

ROW_BYTES = 1_300  # of epochs.jsonl, per epoch
RECORD_BYTES = 4_000  # run.json, result.json, attempts.json
PNG_SHARE = 0.85  # of a phantom's pixels, after PNG's quickest compression


@dataclass(frozen=True)
class Size:
    """Of one network: what its files and embeddings take."""

    weights: int  # best.safetensors
    checkpoint: int  # last.safetensors: Adam's two moments besides
    embedding: int  # of one image


@dataclass(frozen=True)
class Disk:
    runs: float  # run folders
    most: float  # the same, were all trials pruned that may be, and had every completed one led for a while
    copies: float  # MLflow's, in a local store
    data: float  # packed datasets
    raw: float  # rendered phantoms

    @property
    def total(self) -> float:
        return self.runs + self.copies + self.data + self.raw


def disk(plan: Plan, counted: dict[str, Counts]) -> Disk:
    """For the whole study, from its first epoch to its last. ``counted``: by dataset name."""
    study, search = plan.study, plan.study.search
    rules = study.confirmation
    leaders, most_leaders = expected_incumbents(plan), most_incumbents(plan)
    trials, most = expected_trials(search, search.epochs_budget), most_trials(search)
    sizes = {
        (arm.name, c): size_of(arm.training, c) for c in {c.channels for c in counted.values()} for arm in study.arms
    }
    runs = at_most = copies = 0.0
    for key in plan.searches():
        c = counted[key.dataset]
        size = sizes[key.arm, c.channels]
        kept = size.weights + c.validation * size.embedding  # what MLflow copies
        trial = kept + size.checkpoint + RECORD_BYTES
        winner = trial + c.opened * size.embedding + ROW_BYTES * plan.epochs("confirmation")
        leader = trial + ROW_BYTES * search.max_epochs
        confirmed = rules.seeds * rules.folds * (2 if rules.defaults and key.replicate == 0 else 1)
        rows = ROW_BYTES * search.epochs_budget
        runs += trials * len(search.folds) * trial + confirmed * winner + leaders * leader + rows
        at_most += most * len(search.folds) * trial + confirmed * winner + most_leaders * leader + rows
        copies += (trials * len(search.folds) + confirmed + leaders) * kept
    data = sum(counted[d.name].images * counted[d.name].channels * d.size**2 for d in study.datasets)
    raw = sum(counted[d.name].images * PNG_SHARE * d.phantom.size**2 for d in study.datasets if d.phantom is not None)
    return Disk(runs, at_most, copies, data, raw)


def checkpoint_bytes(training: Training, channels: int) -> int:
    """What an epoch writes."""
    size = size_of(training, channels)
    return size.weights + size.checkpoint


def size_of(training: Training, channels: int) -> Size:
    module = build_seeded(unweighted(training.network), channels, 0).eval()
    weights = sum(t.numel() * t.element_size() for t in module.state_dict().values())
    moments = 2 * sum(p.numel() * p.element_size() for p in module.parameters())
    with torch.no_grad():
        embedding = module(torch.zeros(1, channels, training.augment.crop, training.augment.crop))
    return Size(weights, weights + moments, 4 * embedding.shape[1])
