"""A margin steered by how easy the triplets have become: MarginLab's own rule, to compare AutoMargin with."""

from __future__ import annotations

import torch
from torch import Tensor

from marginlab.losses.pairs import Pairs
from marginlab.margins.slots import Margin, check_slot
from marginlab.margins.statistics import Statistics
from marginlab.values import InputError, value


@value
class EasyShareMargin:
    """Epsilon is raised where more than the ``target`` share of triplets is easy, and lowered where less is.

    After an epoch, epsilon := epsilon + rate * (share - target), kept within ``lowest``..``highest``. A triplet is easy if its
    gap is above the epsilon that it was trained with (its loss is 0); the share is that of all valid triplets, mined or
    not. ``beta`` stays; ``beta=None`` sets epsilon alone. An epoch without a triplet leaves the margin as it was.

    The rule is MarginLab's own: a proportional controller. The idea of steering by the share of easy triplets is that of the
    difficulty-aware margin scheduler DAMS (arXiv 2603.26389), whose update rule is not public; this is not DAMS, and its
    results are not DAMS's.
    """

    target: float = 0.5
    rate: float = 0.1
    epsilon: float = 0.25
    beta: float | None = 0.0
    lowest: float = 0.0
    highest: float = 1.0

    def check(self) -> None:
        if not 0 < self.target < 1:
            raise InputError(f"EasyShareMargin.target is a share between 0 and 1, not {self.target}.")
        if self.rate <= 0:
            raise InputError(f"EasyShareMargin.rate must be above 0, not {self.rate}: it is similarity per share.")
        for name in ("epsilon", "lowest", "highest"):
            check_slot("EasyShareMargin", name, getattr(self, name), "epsilon")
        check_slot("EasyShareMargin", "beta", self.beta)
        if not self.lowest <= self.epsilon <= self.highest:
            raise InputError(
                f"EasyShareMargin.epsilon ({self.epsilon}) must lie in lowest..highest ({self.lowest}..{self.highest})."
            )

    @property
    def sets(self) -> tuple[str, ...]:
        return ("epsilon",) if self.beta is None else ("epsilon", "beta")

    def start(self) -> Margin:
        return Margin.of(self.epsilon, self.beta)

    def measure(self, pairs: Pairs, margin: Margin) -> dict[str, Tensor]:
        return {"easy": easy(pairs, margin.epsilon)}

    def after_epoch(self, margin: Margin, statistics: Statistics) -> Margin:
        share, before = statistics["easy"] / statistics.triplets, margin.epsilon.to(statistics.sums.device)
        epsilon = (before + self.rate * (share - self.target)).clamp(self.lowest, self.highest)
        return Margin(torch.where(statistics.triplets > 0, epsilon, before), margin.beta, margin.more)


def easy(pairs: Pairs, epsilon: Tensor) -> Tensor:
    """How many triplets of this rank's anchors have a gap above epsilon; 0-d float64."""
    positives = pairs.positives()
    # Neither padding nor what is not a negative can be easy: its gap is -infinity.
    ap = positives.sim.masked_fill(~positives.real, -float("inf"))
    number = torch.zeros((), dtype=torch.float64, device=ap.device)
    for rows in pairs.chunks():
        an = pairs.sim[rows].masked_fill(~pairs.negative[rows], float("inf"))
        for slot in range(ap.shape[1]):
            number += (ap[rows, slot, None] - an > epsilon).sum()
    return number
