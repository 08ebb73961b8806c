"""How numbers, names and answers are put into words; the same on the terminal and on the page."""

from __future__ import annotations

from typing import Any

from marginlab.compare import LEVEL, Answer
from marginlab.results import Results
from marginlab.tables import AT_K, METRICS

PHANTOM = "measured on phantoms (synthetic images), says nothing about patients"
SIMULATED = "simulated: recorded learning curves were replayed, nothing was trained"
NOTHING = "–"
SEARCHES = (
    "model: trials that the model suggested. best: the winner's validation in its search. "
    "confirmed: its mean on fresh seeds, same folds and epochs."
)


def caution(results: Results, dataset: str) -> str:
    """What no figure on a dataset may be shown without; empty for networks that were trained on images of people."""
    said = (SIMULATED if results.simulated(dataset) else "", PHANTOM if results.phantom(dataset) else "")
    return "; ".join(s for s in said if s)


def number(x: float | None, digits: int = 3) -> str:
    return NOTHING if x is None else f"{x:.{digits}f}".replace("-", "−")


def signed(x: float, digits: int = 4) -> str:
    return f"{x:+.{digits}f}".replace("-", "−")


def measured(mean: float | None, se: float | None) -> str:
    """Mean and standard error; a mean without one (a single seed) stands alone."""
    return number(mean) if mean is None or se is None else f"{number(mean)} ± {number(se)}"


def seconds(s: float | None) -> str:
    if s is None:
        return NOTHING
    if s < 100:
        return f"{s:.1f} s"
    minutes, rest = divmod(round(s), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02d} min"


def percent(share: float | None) -> str:
    return NOTHING if share is None else f"{100 * share:.0f}%"


def percent_of(mean: float | None, se: float | None) -> str:
    """Mean and standard error that are in percent already, with the published tables' one digit."""
    return number(mean, 1) if mean is None or se is None else f"{number(mean, 1)} ± {number(se, 1)}"


def metric_name(metric: str) -> str:
    kind, _, k = metric.removeprefix("test/").rpartition("_")
    return METRICS.get(metric) or (
        f"{AT_K[kind]}@{k}" if kind in AT_K and k.isdigit() else metric.removeprefix("test/")
    )


def horizon_name(months: int | None) -> str:
    return "all" if months is None else str(months)


def years(months: int | None) -> str:
    return "all" if months is None else f"{months / 12:g} y"


def count(n: int, what: str) -> str:
    return f"{n} {what}" + ("" if n == 1 else "s")


def search_name(row: dict[str, Any], replicates: int) -> str:
    """Of a row of ``tables.searches``, within its dataset."""
    return str(row["arm"]) + (f" r{row['replicate']}" if replicates > 1 else "")


def confirmed(row: dict[str, Any]) -> str:
    """The confirmed value of a row of ``tables.searches``, with how far it lies from the search's own."""
    gap = row["optimism"]
    return number(row["confirmed"]) + ("" if gap is None else f" ({signed(-gap, 3)})")


def answer_sentence(a: Answer) -> str:
    """The answer on one dataset with its uncertainty."""
    d, subject = a.difference, f"test {metric_name(a.metric)}"
    if a.horizon is not None:
        subject += f" at {a.horizon} months"
    open_question = f"It is undecided how {a.first} compares with {a.second} in {subject}"
    if d.mean is None:
        return f"{open_question}: no seed has been confirmed for both yet."
    difference = f"{a.first} minus {a.second} is {signed(d.mean)}"
    if d.low is None or d.high is None:
        return f"{open_question}: {difference} on the one seed that both have, and one seed has no error bar."
    units = [count(d.n, "paired seed")]
    units += [count(d.subjects, "subject")] if d.subjects else []
    units += [f"{d.replicates} searches per arm"] if d.replicates > 1 else []
    interval = f"{difference} ({100 * LEVEL:.0f}% interval {signed(d.low)} to {signed(d.high)}, {', '.join(units)})"
    loss = f"−{a.margin:g}, the largest loss that was declared to make no difference"
    if a.verdict == "matches":
        return f"{a.first} matches {a.second} in {subject}: {interval}; the interval lies above {loss}."
    if a.verdict != "undecided":
        side = "above" if a.verdict == "better" else "below"
        return f"{a.first} is {a.verdict} than {a.second} in {subject}: {interval}; the interval lies {side} zero."
    decided = (
        "more seeds alone would not decide it"
        if a.needed is None
        else f"about {a.needed} seeds would decide it (80% power)"
    )
    return (
        f"{open_question}: {interval}; the interval reaches below {loss}, and is not all below zero. "
        f"At this mean and spread, {decided}."
    )
