"""Margin policies: what sets the margins of a loss, from the statistics of the batches before.

A policy is a frozen value with ``sets`` (the slots it fills, of ``SLOTS``), ``start() -> Margin`` for the first epoch and
``after_epoch(margin, statistics) -> Margin`` for the next. Two further methods are optional. ``after_batch(margin,
statistics)`` gives the margins of the next batch from those of this one, and ``measure(pairs, margin)`` returns sums over
this rank's rows, tensors by name, that are added up over ranks and batches: ``statistics[name]``. What a policy
remembers beyond its margins it keeps in ``margin.more``. Everything stays on the device, and the checkpoint has all of it.
"""

from __future__ import annotations

from marginlab.margins.around import MovingAverage, PerBatch, PositiveBound, name_of
from marginlab.margins.automargin import AutoMargin, QuantileMargin
from marginlab.margins.easy import EasyShareMargin
from marginlab.margins.fitting import POLICIES, fits, matrix, supports
from marginlab.margins.fixed import FixedMargin, NoMargin
from marginlab.margins.schedules import CosineMargin, StepMargin
from marginlab.margins.slots import SLOTS, Margin, Slot
from marginlab.margins.statistics import Statistics, observe

__all__ = [
    "POLICIES",
    "SLOTS",
    "AutoMargin",
    "CosineMargin",
    "EasyShareMargin",
    "FixedMargin",
    "Margin",
    "MovingAverage",
    "NoMargin",
    "PerBatch",
    "PositiveBound",
    "QuantileMargin",
    "Slot",
    "Statistics",
    "StepMargin",
    "fits",
    "matrix",
    "name_of",
    "observe",
    "supports",
]

# A value is recorded under its module's name. Recorded studies know these as marginlab.margins:AutoMargin and so on.
for _policy in POLICIES:
    type(_policy).__module__ = __name__
