"""Margins that nothing moves."""

from __future__ import annotations

from typing import ClassVar

from marginlab.margins.slots import Margin, check_slot
from marginlab.margins.statistics import Statistics
from marginlab.values import value


@value
class NoMargin:
    """For losses that read no margin."""

    sets: ClassVar[tuple[str, ...]] = ()

    def start(self) -> Margin:
        return Margin.of()

    def after_epoch(self, margin: Margin, statistics: Statistics) -> Margin:
        return margin


@value
class FixedMargin:
    """Margins that never change. ``beta=None`` sets epsilon alone."""

    epsilon: float = 0.25
    beta: float | None = 0.0

    def check(self) -> None:
        check_slot("FixedMargin", "epsilon", self.epsilon)
        check_slot("FixedMargin", "beta", self.beta)

    @property
    def sets(self) -> tuple[str, ...]:
        return ("epsilon",) if self.beta is None else ("epsilon", "beta")

    def start(self) -> Margin:
        return Margin.of(self.epsilon, self.beta)

    def after_epoch(self, margin: Margin, statistics: Statistics) -> Margin:
        return margin
