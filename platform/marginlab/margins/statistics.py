"""What margin policies learn from: sums over the similarities of batches, the same whatever the loss is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from marginlab.losses.pairs import Pairs
from marginlab.margins.slots import Margin


class Statistics:
    """Sums over an epoch's similarities, global over ranks, in float64 on the device; the same whatever the loss is.

    Of all valid ordered triplets (a, p, n), mined or not: the gap sim_ap - sim_an. Of the unordered, unique negative
    pairs (those of the loss, ``Pairs.negative_pairs``) and of the unordered positive pairs: sim. Embeddings are the
    training ones, so an epoch's mean lags behind the weights, as published. ``statistics[name]`` is what the policy's
    ``measure`` returned, summed as well.
    """

    def __init__(self, sums: Tensor | None = None, more: Mapping[str, Tensor] | None = None) -> None:
        self.sums = torch.zeros(3, 2, dtype=torch.float64) if sums is None else sums  # (gap, neg, pos) x (sum, count)
        self.more = dict(more or {})

    @classmethod
    @torch.no_grad()
    def of(cls, pairs: Pairs, measured: Mapping[str, Tensor] | None = None) -> Statistics:
        """Those of one batch, in O(b B) and without a mask: sums over positives [b, M] and over whole rows of sim [b, B].

        A gap's sum splits into sums over positives and over negatives of an anchor. Unordered sums are half the ordered
        ones; negative pairs of two images that are both alone in their classes are subtracted, for they are no pairs.

        Args:
            measured: further sums, of this rank's rows alone; they are added up over ranks here.
        """
        positives, size = pairs.positives(), pairs.classes.size[pairs.rows].double()
        pos = torch.where(positives.real, positives.sim, 0).sum(1).double()  # [b]
        itself = pairs.sim.diagonal(pairs.start).double()
        neg = pairs.sim.sum(1).double() - pos - itself  # [b]
        gap = pos * (len(pairs.labels) - size) - neg * (size - 1)
        if pairs.some_alone:
            alone = (pairs.classes.size == 1).to(pairs.sim.dtype)  # [B]
            neg = neg - alone[pairs.rows] * ((pairs.sim @ alone).double() - itself)
        sums = pairs.total(torch.stack([gap.sum(), neg.sum() / 2, pos.sum() / 2]))
        counts = torch.stack([pairs.triplet_count, pairs.negative_count, pairs.positive_count])
        return cls(torch.stack([sums, counts], 1), {name: pairs.total(x) for name, x in (measured or {}).items()})

    def add(self, other: Statistics) -> Statistics:
        """Add another batch's, in place; returns itself."""
        self.sums = self.sums.to(other.sums.device) + other.sums
        self.more |= {name: self.more[name] + x if name in self.more else x for name, x in other.more.items()}
        return self

    def __getitem__(self, name: str) -> Tensor:
        return self.more[name]

    @property
    def triplets(self) -> Tensor:
        """Number of triplets, 0-d. A negative pair exists exactly where a triplet does."""
        return self.sums[0, 1]

    @property
    def gap_mean(self) -> Tensor:
        """Mean of sim_ap - sim_an over triplets; NaN where there was none (0-d, as the other means)."""
        return self.sums[0, 0] / self.sums[0, 1]

    @property
    def neg_mean(self) -> Tensor:
        return self.sums[1, 0] / self.sums[1, 1]

    @property
    def pos_mean(self) -> Tensor:
        return self.sums[2, 0] / self.sums[2, 1]


@torch.no_grad()
def observe(policy: Any, pairs: Pairs, margin: Margin) -> Statistics:
    """The statistics of one batch, with what the policy measures; ``margin`` is the one that the batch was trained with."""
    return Statistics.of(pairs, measured(policy, pairs, margin))


def measured(policy: Any, pairs: Pairs, margin: Margin) -> dict[str, Tensor]:
    """What the policy's own ``measure`` says of this rank's rows; nothing where it has none."""
    measure = getattr(policy, "measure", None)
    return dict(measure(pairs, margin)) if measure else {}
