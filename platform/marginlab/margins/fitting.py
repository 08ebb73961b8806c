"""Which losses and policies go together: computed from what they declare, never from a list of pairs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from marginlab.margins.around import MovingAverage, PerBatch, PositiveBound, name_of
from marginlab.margins.automargin import AutoMargin, QuantileMargin
from marginlab.margins.easy import EasyShareMargin
from marginlab.margins.fixed import FixedMargin, NoMargin
from marginlab.margins.schedules import CosineMargin, StepMargin
from marginlab.margins.slots import SLOTS
from marginlab.values import InputError

POLICIES: tuple[Any, ...] = (
    NoMargin(),
    FixedMargin(),
    AutoMargin(),
    QuantileMargin(),
    PerBatch(AutoMargin()),
    MovingAverage(AutoMargin()),
    PositiveBound(AutoMargin()),
    CosineMargin(),
    StepMargin(),
    EasyShareMargin(),
)


def supports(loss: Any, policy: Any) -> bool:
    """Whether the policy sets every slot that the loss reads; and nothing at all where the loss reads nothing."""
    reads, sets = _declared(loss, policy)
    return set(reads) <= set(sets) if reads else not sets


def fits(loss: Any, policy: Any) -> None:
    """Refuse a pair that does not go together, in a sentence that lists what would."""
    if supports(loss, policy):
        return
    reads, sets = _declared(loss, policy)
    owner, missing = type(loss).__name__, [s for s in reads if s not in sets]
    if not reads:
        fault = f"{owner} reads no margin, so {policy} would change nothing. "
    else:
        fault = f"{owner} reads {_described(missing)}, which {policy} does not set: it sets {_described(sets)}. "
    fitting = [name_of(p) for p in POLICIES if supports(loss, p)]
    fault += f"What fits {owner}: {', '.join(fitting) or 'no built-in policy'}"
    instead = f"; or take a loss that reads nothing but {' and '.join(sets)}" if sets and reads else ""
    raise InputError(f"{fault}{instead}.")


def matrix(losses: Sequence[Any], policies: Sequence[Any] = POLICIES) -> str:
    """The supported pairs as a table in Markdown: a row per loss, a column per policy."""
    header = ["loss", "reads", *map(name_of, policies)]
    rows = [
        [
            type(loss).__name__,
            ", ".join(loss.slots) or "nothing",
            *("yes" if supports(loss, p) else "" for p in policies),
        ]
        for loss in losses
    ]
    return "\n".join("| " + " | ".join(row) + " |" for row in (header, ["---"] * len(header), *rows)) + "\n"


def _declared(loss: Any, policy: Any) -> tuple[tuple[str, ...], tuple[str, ...]]:
    return cast("tuple[str, ...]", loss.slots), cast("tuple[str, ...]", policy.sets)


def _described(slots: Any) -> str:
    known = {name: f"{name} ({slot.meaning}; {slot.unit})" for name, slot in SLOTS.items()}
    return " and ".join(known.get(s, s) for s in slots) or "nothing"
