"""What a margin means: the slots that losses read and policies set, and the value that carries them from one to the other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from marginlab.values import InputError


class Slot(NamedTuple):
    meaning: str
    unit: str
    low: float
    high: float
    kind: str  # what the number is, for the sentence that refuses one out of range


SLOTS = {
    "epsilon": Slot(
        "the gap wanted between the similarities of a positive and of a negative pair",
        "cosine, 0..2",
        0,
        2,
        "a difference of two cosines",
    ),
    "beta": Slot(
        "the bound that the similarity of a negative pair should stay below", "cosine, -1..1", -1, 1, "a cosine"
    ),
    "beta_p": Slot(
        "the bound that the similarity of a positive pair should stay above", "cosine, -1..1", -1, 1, "a cosine"
    ),
}


@dataclass(frozen=True)
class Margin:
    """The margins of one step: 0-d float64 tensors; of epsilon and beta, one that the policy does not set holds NaN.

    ``more`` holds further slots (``margin["beta_p"]``) and what the policy remembers, by name; its tensors are as
    the policy makes them. All of it is in the checkpoint, so that a policy needs no state of its own.
    """

    epsilon: Tensor
    beta: Tensor
    more: Mapping[str, Tensor] = field(default_factory=dict)

    @classmethod
    def of(cls, epsilon: float | None = None, beta: float | None = None, **more: float) -> Margin:
        """From numbers. On the CPU: a 0-d CPU tensor meets device tensors without a wait or a transfer."""

        def number(x: float | None) -> Tensor:
            return torch.tensor(float("nan") if x is None else x, dtype=torch.float64)

        return cls(number(epsilon), number(beta), {name: number(x) for name, x in more.items()})

    def __getitem__(self, name: str) -> Tensor:
        """A slot, or what was remembered, by name."""
        return {"epsilon": self.epsilon, "beta": self.beta}[name] if name in ("epsilon", "beta") else self.more[name]

    def also(self, more: Mapping[str, Tensor]) -> Margin:
        """With these further slots or memories, in the place of those of the same names."""
        return Margin(self.epsilon, self.beta, {**self.more, **more})

    def tensors(self) -> dict[str, Tensor]:
        """All of it by name; ``Margin(**)`` of epsilon, beta and the rest as ``more`` is the inverse."""
        return {"epsilon": self.epsilon, "beta": self.beta, **self.more}

    def to(self, device: torch.device) -> Margin:
        more = {name: x.to(device) for name, x in self.more.items()}
        return Margin(self.epsilon.to(device), self.beta.to(device), more)


def check_slot(owner: str, name: str, number: float | None, slot: str | None = None) -> None:
    """Refuse a number that is out of the slot's range. ``None`` stands for a slot that is not set."""
    allowed = SLOTS[slot or name]
    if number is not None and not allowed.low <= number <= allowed.high:
        raise InputError(
            f"{owner}.{name} must be in {allowed.low:g}..{allowed.high:g}, not {number}: it is {allowed.kind}."
        )


def at_least_one(owner: str, **divisors: float) -> None:
    for name, k in divisors.items():
        if k < 1:
            raise InputError(f"{owner}.{name} must be 1 or more, not {k}: it divides the mean that sets a margin.")
