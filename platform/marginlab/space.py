"""What a search may vary: values that read like Ray Tune's, become Optuna distributions, and round-trip through JSON."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from marginlab.values import InputError, value


@value
class Choice:
    options: tuple  # type: ignore[type-arg]

    def check(self) -> None:
        if not self.options:
            raise InputError("choice() needs at least one option.")

    def distribution(self) -> BaseDistribution:
        return CategoricalDistribution(self.options)

    def bounds(self) -> tuple[Any, ...]:
        return self.options

    def size(self) -> float:
        """How many options there are."""
        return float(len(self.options))

    def __str__(self) -> str:
        return " | ".join(f"{o:g}" if isinstance(o, float) else str(o) for o in self.options)


@value
class Uniform:
    low: float
    high: float
    log: bool = False

    def check(self) -> None:
        if not self.low < self.high:
            raise InputError(f"uniform({self.low:g}, {self.high:g}): the lower end must be below the upper one.")
        if self.log and self.low <= 0:
            raise InputError(f"loguniform({self.low:g}, {self.high:g}): the lower end must be above 0.")

    def distribution(self) -> BaseDistribution:
        return FloatDistribution(self.low, self.high, log=self.log)

    def bounds(self) -> tuple[Any, ...]:
        return (self.low, self.high)

    def size(self) -> float:
        """The width; of a logarithmic one, in natural logarithms."""
        return math.log(self.high / self.low) if self.log else self.high - self.low

    def __str__(self) -> str:
        return f"{self.low:g} to {self.high:g}" + (" (log)" if self.log else "")


@value
class RandInt:
    low: int
    high: int  # inclusive

    def check(self) -> None:
        if not self.low <= self.high:
            raise InputError(f"randint({self.low}, {self.high}): the lower end must not be above the upper one.")

    def distribution(self) -> BaseDistribution:
        return IntDistribution(self.low, self.high)

    def bounds(self) -> tuple[Any, ...]:
        return (self.low, self.high)

    def size(self) -> float:
        """How many whole numbers there are."""
        return float(self.high - self.low + 1)

    def __str__(self) -> str:
        return f"{self.low} to {self.high}"


def choice(options: Iterable[Any]) -> Choice:
    """One of the options."""
    return Choice(tuple(options))


def uniform(low: float, high: float) -> Uniform:
    """A real number between the ends."""
    return Uniform(low, high)


def loguniform(low: float, high: float) -> Uniform:
    """A real number between the ends, uniform in its logarithm."""
    return Uniform(low, high, log=True)


def randint(low: int, high: int) -> RandInt:
    """A whole number between the ends. Unlike Ray Tune's, the upper end is included (as in Optuna)."""
    return RandInt(low, high)
