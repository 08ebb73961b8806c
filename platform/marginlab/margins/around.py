"""Policies around a policy: when it learns, from how much of the past, and a further slot beside those it sets."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from marginlab.losses.pairs import Pairs
from marginlab.margins.fixed import FixedMargin, NoMargin
from marginlab.margins.schedules import CosineMargin, StepMargin
from marginlab.margins.slots import Margin, at_least_one, check_slot
from marginlab.margins.statistics import Statistics, measured
from marginlab.values import InputError, value


class _Around:
    """What a policy around ``policy`` passes through."""

    policy: Any

    @property
    def sets(self) -> tuple[str, ...]:
        return tuple(self.policy.sets)

    def start(self) -> Margin:
        margin: Margin = self.policy.start()
        return margin

    def measure(self, pairs: Pairs, margin: Margin) -> dict[str, Tensor]:
        return measured(self.policy, pairs, margin)

    def after_epoch(self, margin: Margin, statistics: Statistics) -> Margin:
        following: Margin = self.policy.after_epoch(margin, statistics)
        return following


@value
class PerBatch(_Around):
    """``policy`` with a batch in the place of an epoch: after every batch, from the statistics of that batch alone.

    A batch is trained with margins that were made from the batch before it, never from itself, across the ends of epochs
    too; the very first batch has the policy's first margins. In the run's record an epoch's margins are those of its last
    batch. With AutoMargin or QuantileMargin it is the code's ``automargin_mode: adaptive``, which empties its lists after
    every batch; its Triplet-AM ignores the mode, here every loss has it. ``PerBatch(MovingAverage(policy))`` learns
    from more than one batch.
    """

    policy: Any

    def check(self) -> None:
        _check_inner(self)
        _check_learns(self, self.policy)
        within = self.policy
        while isinstance(within, _Around):
            within = within.policy
        if isinstance(within, (CosineMargin, StepMargin)):
            raise InputError(
                f"PerBatch cannot go around {name_of(self.policy)}: a schedule counts epochs, not batches."
            )

    def after_batch(self, margin: Margin, statistics: Statistics) -> Margin:
        return super().after_epoch(margin, statistics)

    def after_epoch(self, margin: Margin, statistics: Statistics) -> Margin:
        return margin


@value
class MovingAverage(_Around):
    """``policy`` with statistics that remember: those of an epoch (in ``PerBatch``, of a batch) of age n weigh decay**n.

    Sums and counts fade alike, so a mean, a share or a quantile is one of the weighted triplets and pairs of the past, without
    a bias towards the start; the first epoch's are its own. The sums are in the checkpoint. MarginLab's own; the
    AdaTriplet authors' code has no such mode.
    """

    policy: Any
    decay: float = 0.9

    def check(self) -> None:
        _check_inner(self)
        _check_learns(self, self.policy)
        if not 0 < self.decay < 1:
            raise InputError(
                f"MovingAverage.decay must lie between 0 and 1, not {self.decay}: it is the past's weight."
            )

    def after_epoch(self, margin: Margin, statistics: Statistics) -> Margin:
        def faded(key: str, new: Tensor) -> Tensor:
            return new + self.decay * margin[key].to(new.device) if key in margin.more else new

        sums = faded("average", statistics.sums)
        more = {name: faded(f"average/{name}", x) for name, x in statistics.more.items()}
        following = super().after_epoch(margin, Statistics(sums, more))
        return following.also({"average": sums, **{f"average/{name}": x for name, x in more.items()}})


@value
class PositiveBound(_Around):
    """``policy`` and, beside what it sets, ``beta_p``: with ``k_p`` mean sim_ap / k_p of the last epoch, without it fixed.

    ``beta_p`` is the bound of the first epoch. An epoch without a positive pair leaves it as it was. Source: the AdaTriplet
    authors' code, ``automargin_mode: add-ap`` (k_p = 2, beta_p = 0 in epoch 0).
    """

    policy: Any
    k_p: float | None = 2.0
    beta_p: float = 0.0

    def check(self) -> None:
        _check_inner(self)
        if self.k_p is not None:
            at_least_one("PositiveBound", k_p=self.k_p)
        check_slot("PositiveBound", "beta_p", self.beta_p)

    @property
    def sets(self) -> tuple[str, ...]:
        return (*super().sets, "beta_p")

    def start(self) -> Margin:
        return super().start().also({"beta_p": torch.tensor(self.beta_p, dtype=torch.float64)})

    def after_epoch(self, margin: Margin, statistics: Statistics) -> Margin:
        bound, following = margin["beta_p"], super().after_epoch(margin, statistics)
        if self.k_p is not None:
            new = statistics.pos_mean / self.k_p
            bound = torch.where(statistics.sums[2, 1] > 0, new, bound.to(new.device))
        return following.also({"beta_p": bound})


def _check_inner(outer: Any) -> None:
    owner, inner = type(outer).__name__, outer.policy
    missing = [name for name in ("sets", "start", "after_epoch") if not hasattr(inner, name)]
    if isinstance(inner, type) or missing:
        raise InputError(f"{owner} goes around a margin policy, such as {owner}(AutoMargin()), not {inner!r}.")
    if hasattr(inner, "after_batch"):
        raise InputError(
            f"{owner} cannot go around {name_of(inner)}, which learns from every batch: PerBatch goes outside, as in "
            f"PerBatch({'MovingAverage' if isinstance(outer, PerBatch) else owner}(AutoMargin()))."
        )


def _check_learns(outer: Any, inner: Any) -> None:
    if isinstance(inner, (NoMargin, FixedMargin, CosineMargin, StepMargin)):
        raise InputError(
            f"{type(outer).__name__} would change nothing in {name_of(inner)}, which does not learn from statistics."
        )


def name_of(policy: Any) -> str:
    """Such as ``PerBatch(AutoMargin)``: what a policy is, without its numbers."""
    return type(policy).__name__ + (f"({name_of(policy.policy)})" if isinstance(policy, _Around) else "")
