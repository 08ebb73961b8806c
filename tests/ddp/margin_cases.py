"""What the ranks run for test_margins: every policy through three epochs of three batches that need no network."""

from __future__ import annotations

from typing import Any

import torch
from loss_cases import features, own_rows

from marginlab.losses import Pairs
from marginlab.margins import POLICIES, EasyShareMargin, MovingAverage, PerBatch, QuantileMargin, Statistics, observe

POLICIES_TRIED: list[Any] = [
    *POLICIES,
    QuantileMargin(0.5, 0.5),
    PerBatch(EasyShareMargin()),
    PerBatch(MovingAverage(QuantileMargin())),
]
LABELS = {  # of 8 images, of which rank 0 has the first four
    "identities over both ranks": [0, 1, 2, 0, 1, 0, 2, 1],
    "nobody of rank 1 has a positive": [0, 0, 0, 1, 2, 3, 4, 5],
    "no positive": list(range(8)),
}


def margins() -> dict[str, list[float]]:
    """By policy: all tensors of its margin, memories included, after every batch and epoch."""
    said: dict[str, list[float]] = {}
    for policy in POLICIES_TRIED:
        margin, numbers = policy.start(), said.setdefault(str(policy), [])
        after_batch = getattr(policy, "after_batch", lambda margin, statistics: margin)
        for epoch in range(3):
            statistics = Statistics()
            for batch, (name, labels) in enumerate(LABELS.items()):
                x, y = features(name, seed=10 * epoch + batch), torch.tensor(labels)
                x = x + 3 * torch.nn.functional.one_hot(y % 4, 4)
                seen = observe(policy, Pairs.of(own_rows(x), own_rows(y)), margin)
                margin = after_batch(margin, seen)
                statistics.add(seen)
                numbers += [v for t in margin.tensors().values() for v in t.flatten().tolist()]
            margin = policy.after_epoch(margin, statistics)
            numbers += [v for t in margin.tensors().values() for v in t.flatten().tolist()]
    return said
