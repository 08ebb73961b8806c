from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from marginlab.margins import CosineMargin, Statistics, StepMargin


def course(policy: Any, epochs: int) -> list[tuple[float, float]]:
    margin, seen = policy.start(), []
    for _ in range(epochs):
        seen.append((margin.epsilon.item(), margin.beta.item()))
        margin = policy.after_epoch(margin, Statistics())
    return seen


def test_a_cosine_is_that_of_the_learning_rates_of_torch() -> None:
    policy = CosineMargin(0.5, 0.1, 0.25, -0.25, epochs=7)
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=0.5)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=7, eta_min=0.1)
    for epsilon, beta in course(policy, 8):
        rate = optimizer.param_groups[0]["lr"]
        assert epsilon == pytest.approx(rate, abs=1e-12)
        assert beta == pytest.approx(-0.25 + (rate - 0.1) / 0.4 * 0.5, abs=1e-12)
        optimizer.step()
        schedule.step()


def test_a_cosine_ends_exactly_and_stays_there() -> None:
    seen = course(CosineMargin(0.05, 0.3, 0.7, epochs=3), 7)
    assert seen[0] == (0.05, 0.7) and seen[3:] == [(0.3, 0.7)] * 4
    assert all(math.isnan(beta) for _, beta in course(CosineMargin(beta=None), 2))


def test_steps_are_taken_after_their_epochs() -> None:
    seen = course(StepMargin(0.125, 0.25, -0.5, 0.5, at=(1, 3)), 6)
    assert seen == [(0.125, -0.5), (0.375, 0.0), (0.375, 0.0), (0.625, 0.5), (0.625, 0.5), (0.625, 0.5)]
    assert StepMargin(0.8, 0.2, at=(1, 2, 3, 4, 5, 6)).at[-1] == 6  # ends at 2, whatever floating point says
    assert StepMargin(at=[2, 5]) == StepMargin(at=(2, 5))  # type: ignore[arg-type]  # as JSON gives it
