"""Margin policies: what sets the margins of a loss, from the statistics of the epoch before.

A policy is a frozen value with ``sets`` (the slots it fills), ``start() -> Margin`` for epoch 0 and
``after_epoch(margin, statistics) -> Margin`` for the next. Margins are constant within an epoch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, cast

import torch
from torch import Tensor

from marginlab.losses.pairs import Pairs
from marginlab.values import InputError, value


class Slot(NamedTuple):
    meaning: str
    unit: str


SLOTS = {
    "epsilon": Slot("the gap wanted between the similarities of a positive and of a negative pair", "cosine, 0..2"),
    "beta": Slot("the bound that the similarity of a negative pair should stay below", "cosine, -1..1"),
}


@dataclass(frozen=True)
class Margin:
    """The margins of one epoch: 0-d float64 tensors; a slot that the policy does not set holds NaN."""

    epsilon: Tensor
    beta: Tensor

    @classmethod
    def of(cls, epsilon: float | None = None, beta: float | None = None) -> Margin:
        """From numbers. On the CPU: a 0-d CPU tensor meets device tensors without a wait or a transfer."""
        nan = float("nan")
        slots = [nan if x is None else x for x in (epsilon, beta)]
        return cls(*(torch.tensor(x, dtype=torch.float64) for x in slots))


class Statistics:
    """Sums over an epoch's similarities, global over ranks, in float64 on the device; the same whatever the loss is.

    Of all valid ordered triplets (a, p, n), mined or not: the gap sim_ap - sim_an. Of the unordered, unique negative
    pairs (those of the loss, ``Pairs.negative_pairs``) and of the unordered positive pairs: sim. Embeddings are the
    training ones, so an epoch's mean lags behind the weights, as published.
    """

    def __init__(self, sums: Tensor | None = None) -> None:
        self.sums = torch.zeros(3, 2, dtype=torch.float64) if sums is None else sums  # (gap, neg, pos) x (sum, count)

    @classmethod
    @torch.no_grad()
    def of(cls, pairs: Pairs) -> Statistics:
        """Those of one batch, in O(b B) and without a mask: sums over positives [b, M] and over whole rows of sim [b, B].

        A gap's sum splits into sums over positives and over negatives of an anchor. Unordered sums are half the ordered
        ones; negative pairs of two images that are both alone in their classes are subtracted, for they are no pairs.
        """
        positives, size = pairs.positives(), pairs.classes.size[pairs.rows].double()
        pos = torch.where(positives.real, positives.sim, 0).sum(1).double()  # [b]
        itself = pairs.sim.diagonal(pairs.start).double()
        neg = pairs.sim.sum(1).double() - pos - itself  # [b]
        alone = (pairs.classes.size == 1).to(pairs.sim.dtype)  # [B]
        neither = alone[pairs.rows] * ((pairs.sim @ alone).double() - itself)  # [b]
        gap = pos * (len(pairs.labels) - size) - neg * (size - 1)
        sums = pairs.total(torch.stack([gap.sum(), (neg - neither).sum() / 2, pos.sum() / 2]))
        return cls(
            torch.stack([sums, torch.stack([pairs.triplet_count, pairs.negative_count, pairs.positive_count])], 1)
        )

    def add(self, other: Statistics) -> Statistics:
        """Add another batch's, in place; returns itself."""
        self.sums = self.sums.to(other.sums.device) + other.sums
        return self

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


@value
class FixedMargin:
    """Margins that never change. ``beta=None`` sets epsilon alone."""

    epsilon: float = 0.25
    beta: float | None = 0.0

    def check(self) -> None:
        _check_range("FixedMargin", self.epsilon, self.beta)

    @property
    def sets(self) -> tuple[str, ...]:
        return ("epsilon",) if self.beta is None else ("epsilon", "beta")

    def start(self) -> Margin:
        return Margin.of(self.epsilon, self.beta)

    def after_epoch(self, margin: Margin, statistics: Statistics) -> Margin:
        return margin


@value
class AutoMargin:
    """Margins from the last epoch's statistics: epsilon = max(0, mean gap / k_delta), beta = 1 + (mean sim_an - 1) / k_an.

    ``epsilon`` and ``beta`` are the margins of epoch 0. An epoch without a triplet leaves the margins as they were.
    Source: the AdaTriplet authors' code (arXiv 2205.02849).
    """

    k_delta: float = 2.0
    k_an: float = 2.0
    epsilon: float = 0.25
    beta: float = 0.0
    sets: ClassVar[tuple[str, ...]] = ("epsilon", "beta")

    def check(self) -> None:
        for name, k in (("k_delta", self.k_delta), ("k_an", self.k_an)):
            if k < 1:
                raise InputError(
                    f"AutoMargin.{name} must be 1 or more, not {k}: it divides the mean that sets a margin."
                )
        _check_range("AutoMargin", self.epsilon, self.beta)

    def start(self) -> Margin:
        return Margin.of(self.epsilon, self.beta)

    def after_epoch(self, margin: Margin, statistics: Statistics) -> Margin:
        seen = statistics.sums[0, 1] > 0  # a negative pair exists exactly where a triplet does
        epsilon = (statistics.gap_mean / self.k_delta).clamp(min=0)
        beta = 1 + (statistics.neg_mean - 1) / self.k_an
        return Margin(
            *(
                torch.where(seen, new, old.to(new.device))
                for new, old in ((epsilon, margin.epsilon), (beta, margin.beta))
            )
        )


def _check_range(owner: str, epsilon: float, beta: float | None) -> None:
    if not 0 <= epsilon <= 2:
        raise InputError(f"{owner}.epsilon must be in 0..2, not {epsilon}: it is a difference of two cosines.")
    if beta is not None and not -1 <= beta <= 1:
        raise InputError(f"{owner}.beta must be in -1..1, not {beta}: it is a cosine.")


POLICIES = (FixedMargin(), AutoMargin())


def fits(loss: Any, policy: Any) -> None:
    """Refuse a policy that does not set every slot the loss reads, in a sentence that lists what would fit."""
    reads, sets = (cast("tuple[str, ...]", x) for x in (loss.slots, policy.sets))
    missing = [s for s in reads if s not in sets]
    if not missing:
        return
    fitting = [str(p) for p in POLICIES if set(reads) <= set(p.sets)]
    raise InputError(
        f"{type(loss).__name__} reads {_described(missing)}, which {policy} does not set: it sets {_described(sets)}. "
        f"What fits {type(loss).__name__}: {', '.join(fitting) or 'no built-in policy'}; "
        f"or take a loss that reads nothing but {' and '.join(sets) or 'the similarities'}."
    )


def _described(slots: Any) -> str:
    known = {name: f"{name} ({slot.meaning}; {slot.unit})" for name, slot in SLOTS.items()}
    return " and ".join(known.get(s, s) for s in slots) or "nothing"
