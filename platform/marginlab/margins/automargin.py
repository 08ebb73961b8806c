"""AutoMargin (Nguyen, Nguyen, Tiulpin; MICCAI 2022; arXiv 2205.02849): margins from the statistics of the epoch before."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from marginlab.losses.pairs import Pairs
from marginlab.margins import histogram
from marginlab.margins.slots import Margin, at_least_one, check_slot
from marginlab.margins.statistics import Statistics
from marginlab.values import InputError, value


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
        at_least_one("AutoMargin", k_delta=self.k_delta, k_an=self.k_an)
        check_slot("AutoMargin", "epsilon", self.epsilon)
        check_slot("AutoMargin", "beta", self.beta)

    def start(self) -> Margin:
        return Margin.of(self.epsilon, self.beta)

    def after_epoch(self, margin: Margin, statistics: Statistics) -> Margin:
        epsilon = (statistics.gap_mean / self.k_delta).clamp(min=0)
        beta = 1 + (statistics.neg_mean - 1) / self.k_an
        return where_seen(statistics, margin, epsilon, beta)


@value
class QuantileMargin:
    """AutoMargin by quantiles: epsilon = max(0, the ``gap`` quantile of gaps), beta = the ``negative`` quantile of sim_an.

    The defaults are the code's ``automargin_mode: Q1`` (quartiles); ``QuantileMargin(gap=0.5, negative=0.5)`` is its Q2 (medians).
    Gaps and negatives are those of :class:`Statistics`. Quantiles are read from histograms
    (:mod:`marginlab.margins.histogram`), at most 0.0005 away from the exact ones; the code keeps every value of the epoch
    in lists. ``epsilon`` and ``beta`` are the margins of epoch 0. An epoch without a triplet leaves the margins as they were.
    """

    gap: float = 0.25
    negative: float = 0.75
    epsilon: float = 0.25
    beta: float = 0.0
    sets: ClassVar[tuple[str, ...]] = ("epsilon", "beta")

    def check(self) -> None:
        for name in ("gap", "negative"):
            if not 0 < getattr(self, name) < 1:
                raise InputError(
                    f"QuantileMargin.{name} must lie between 0 and 1, not {getattr(self, name)}: 0.5 is the median."
                )
        check_slot("QuantileMargin", "epsilon", self.epsilon)
        check_slot("QuantileMargin", "beta", self.beta)

    def start(self) -> Margin:
        return Margin.of(self.epsilon, self.beta)

    def measure(self, pairs: Pairs, margin: Margin) -> dict[str, Tensor]:
        return {"gaps": histogram.gaps(pairs), "negatives": histogram.negatives(pairs)}

    def after_epoch(self, margin: Margin, statistics: Statistics) -> Margin:
        epsilon = histogram.quantile(statistics["gaps"], self.gap).clamp(min=0)
        beta = histogram.quantile(statistics["negatives"], self.negative)
        return where_seen(statistics, margin, epsilon, beta)


def where_seen(statistics: Statistics, before: Margin, epsilon: Tensor, beta: Tensor) -> Margin:
    """The new margins where there was a triplet, else those from before."""
    seen = statistics.triplets > 0
    epsilon = torch.where(seen, epsilon, before.epsilon.to(epsilon.device))
    return Margin(epsilon, torch.where(seen, beta, before.beta.to(beta.device)), before.more)
