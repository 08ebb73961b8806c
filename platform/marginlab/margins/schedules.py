"""Margins that follow the epoch's number and nothing else."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from marginlab.margins.slots import Margin, check_slot
from marginlab.margins.statistics import Statistics
from marginlab.values import InputError, value

EPOCH = "epoch"  # what a schedule remembers: how many epochs have ended


class _Schedule:
    """Margins that are a function of the number of epochs that have ended."""

    beta: float | None

    @property
    def sets(self) -> tuple[str, ...]:
        return ("epsilon",) if self.beta is None else ("epsilon", "beta")

    def start(self) -> Margin:
        return self._after(torch.tensor(0))

    def after_epoch(self, margin: Margin, statistics: Statistics) -> Margin:
        return self._after(margin[EPOCH] + 1)

    def _after(self, epochs: Tensor) -> Margin:
        raise NotImplementedError


@value
class CosineMargin(_Schedule):
    """From ``epsilon`` to ``epsilon_end`` (and ``beta`` to ``beta_end``) along half a cosine, within ``epochs`` epochs.

    After t epochs a margin is end + (start - end) (1 + cos(pi t / epochs)) / 2, and the end from t = epochs on: the first
    epoch trains with the start, the one after ``epochs`` with the end. ``beta=None`` sets epsilon alone; a beta without an
    end stays. The form is that of Loshchilov and Hutter's learning rates (arXiv 1608.03983).
    """

    epsilon: float = 0.05
    epsilon_end: float = 0.5
    beta: float | None = 0.0
    beta_end: float | None = None
    epochs: int = 100

    def check(self) -> None:
        _check_ends(self)
        if self.epochs < 1:
            raise InputError(
                f"CosineMargin.epochs must be at least 1, not {self.epochs}: the end is reached after them."
            )

    def _after(self, epochs: Tensor) -> Margin:
        left = (1 + torch.cos(math.pi * epochs.double().clamp(max=self.epochs) / self.epochs)) / 2
        beta = torch.full_like(left, math.nan if self.beta is None else self.beta)
        if self.beta_end is not None:
            beta = beta * left + self.beta_end * (1 - left)
        return Margin(self.epsilon * left + self.epsilon_end * (1 - left), beta, {EPOCH: epochs})


@value
class StepMargin(_Schedule):
    """``epsilon`` grows by ``epsilon_step`` (and ``beta`` by ``beta_step``) after each of the numbers of epochs in ``at``.

    A margin raised in stages, such as ``StepMargin(epsilon=0.1, epsilon_step=0.2, at=(30, 60))``: 0.1 for 30 epochs, 0.3 for
    30 more, then 0.5. Steps may be negative. ``beta=None`` sets epsilon alone.
    """

    epsilon: float = 0.1
    epsilon_step: float = 0.2
    beta: float | None = 0.0
    beta_step: float = 0.0
    at: tuple = (30, 60)  # type: ignore[type-arg]

    def check(self) -> None:
        at = self.at if isinstance(self.at, tuple) else ()
        whole = all(isinstance(t, int) and not isinstance(t, bool) and t >= 1 for t in at)
        if not (at and whole and list(at) == sorted(set(at))):
            raise InputError(
                f"StepMargin.at must be numbers of epochs, 1 or more and rising, such as (30, 60), not {self.at!r}."
            )
        _check_ends(self, epsilon_step=self.epsilon_step, beta_step=self.beta_step)

    def _after(self, epochs: Tensor) -> Margin:
        steps = sum(((epochs >= t).double() for t in self.at), torch.zeros((), dtype=torch.float64))
        beta = math.nan if self.beta is None else self.beta
        return Margin(self.epsilon + steps * self.epsilon_step, beta + steps * self.beta_step, {EPOCH: epochs})


def _check_ends(policy: Any, **steps: float) -> None:
    """Both ends of both margins must be in range; what lies between them then is."""
    owner = type(policy).__name__
    if policy.beta is None and (getattr(policy, "beta_end", None) is not None or steps.get("beta_step")):
        raise InputError(f"{owner} has beta=None, so it sets no beta: give the beta of the first epoch as well.")
    for slot in ("epsilon", "beta"):
        first = getattr(policy, slot)
        check_slot(owner, slot, first)
        if not steps:
            check_slot(owner, f"{slot}_end", getattr(policy, f"{slot}_end"), slot)
        elif first is not None:
            last = round(first + len(policy.at) * steps[f"{slot}_step"], 12)  # 0.8 + 6 * 0.2 is 2
            try:
                check_slot(owner, slot, last)
            except InputError as e:
                raise InputError(f"After the last of its {len(policy.at)} steps, {e}") from None
