"""What was declared before anything ran, whether the study can confirm anything, and what was declared anew since."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

from marginlab.reach import Design
from marginlab.report.words import metric_name
from marginlab.results import Results
from marginlab.scores import split_metric


def declared(results: Results) -> list[str]:
    """Sentences; the changes first, because they bear on all that follows."""
    return [*_changes(results), *_declaration(results)]


def _declaration(results: Results) -> Iterator[str]:
    study, comparison = results.study, results.study.comparison
    if comparison.contrast is None:
        return
    metric, horizon = split_metric(comparison.primary)
    at = "" if horizon is None else f" at {horizon} months"
    first, second = comparison.contrast
    yield (
        f"Declared beforehand: test {metric_name(metric)}{at}, {first} against {second}, differences down to "
        f"−{comparison.margin:g} to count as none."
    )
    design = Design(study.confirmation.seeds, len(study.datasets))
    if comparison.confirmatory:
        yield "Declared as confirmatory: the answer is meant to settle the question."
    elif why := design.why():
        yield f"Exploratory: {why}."
    else:
        yield "Exploratory, as declared."


def _changes(results: Results) -> Iterator[str]:
    for change in results.redeclared:
        day = time.strftime("%Y-%m-%d", time.gmtime(change["time"]))
        when = "after the test split had been opened" if change["test_opened"] else "before the test split was opened"
        yield f"The comparison was changed on {day}, {when}: {_told(change['before'], change['after'])}."


def _told(before: dict[str, Any], after: dict[str, Any]) -> str:
    names = [n for n in dict.fromkeys([*before, *after]) if n != "type" and before.get(n) != after.get(n)]
    return ", ".join(f"{n} was {json.dumps(before.get(n))}, is {json.dumps(after.get(n))}" for n in names)
