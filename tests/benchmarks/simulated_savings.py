"""What pruning and AutoMargin save at 10, 100 and 1,000 trials: the table of docs/simulated-trials.md.

    PYTHONPATH=platform python tests/benchmarks/simulated_savings.py            # from the project's folder; --replicates 3 --trials 1000

The searches of studies/simulated_cost.py, by the book that decides in a study, one trial at a time, in memory. `marginlab run
studies/simulated_cost.py` takes the same decisions behind Tune where one trial runs at a time.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import time
from pathlib import Path
from typing import Any

import optuna

from marginlab.declaration import load_study
from marginlab.plan import Plan, SearchKey
from marginlab.search import Book, Ticket
from marginlab.simulated import Curves
from marginlab.study import Study

SIZES = (10, 100, 1000)


@dataclasses.dataclass
class Course:
    """Of one search, after each of its trials."""

    epochs: list[int]  # spent so far
    worth: list[float]  # what the leader's configuration is expected to give; NaN where there is none yet

    def until(self, level: float) -> int | None:
        """Epochs until the leader is worth so much."""
        return next((e for e, w in zip(self.epochs, self.worth, strict=True) if w >= level), None)


def searched(study: Study, curves: Curves, trials: int) -> dict[SearchKey, Course]:
    """So many trials of each search."""
    rules = study.search
    study = dataclasses.replace(study, search=dataclasses.replace(rules, epochs_budget=trials * rules.max_epochs))
    plan = Plan(study, {"oai": curves.fingerprint}, ("oai",))
    book = Book(plan, optuna.storages.InMemoryStorage())
    courses = {key: Course([], []) for key in plan.searches()}
    best: dict[SearchKey, tuple[float, float]] = {}  # as the search has seen it, and what it is worth
    token = 0
    while isinstance(ticket := book.ask(str(token)), Ticket):
        course = courses[ticket.key]
        last = follow(book, str(token), plan, curves, ticket)
        token += 1
        if len(course.epochs) == trials:  # pruning pays for more
            if all(len(c.epochs) == trials for c in courses.values()):
                break
            continue
        arm = ticket.key.arm
        seen, epochs = last
        if seen is not None and seen > best.get(ticket.key, (-1.0, 0.0))[0]:
            best[ticket.key] = seen, curves.expected("oai", arm, ticket.params, rules.objective, rules.max_epochs)
        course.epochs.append((course.epochs or [0])[-1] + epochs)
        course.worth.append(best.get(ticket.key, (0.0, float("nan")))[1])
    return courses


def follow(book: Book, token: str, plan: Plan, curves: Curves, ticket: Ticket) -> tuple[float | None, int]:
    """One trial: its value if it was completed, and what it cost."""
    task = plan.trial(ticket.key, ticket.number, ticket.params, 0)
    values: list[float] = []

    def report(epoch: int, row: dict[str, float], state: Any) -> bool:
        if epoch == 0:
            return True
        values.append(row[plan.study.search.objective])
        return book.report(token, epoch, values[-1])

    curves.replay(task.run, task.labels, report, None)
    if token in book.live:
        book.tell(token, "complete")
        return values[-1], len(values)
    return None, len(values)


def table(study: Study, unpruned: Study, curves: Curves, trials: int) -> list[str]:
    pruned, whole = searched(study, curves, trials), searched(unpruned, curves, trials)
    first, second = study.comparison.contrast or ("", "")
    lines = [
        "| trials | arm | epochs, unpruned | epochs, pruned | saved | found, unpruned | found, pruned |",
        "|---:|---|---:|---:|---:|---:|---:|",
    ]
    for size in (s for s in SIZES if s <= trials):
        for arm in (first, second):
            cost = [[c.epochs[size - 1] for key, c in side.items() if key.arm == arm] for side in (whole, pruned)]
            worth = [[c.worth[size - 1] for key, c in side.items() if key.arm == arm] for side in (whole, pruned)]
            a, b = (statistics.median(c) for c in cost)
            found = " | ".join(f"{statistics.median(w):.3f} ({min(w):.3f} to {max(w):.3f})" for w in worth)
            lines.append(f"| {size:,} | {arm} | {a:,.0f} | {b:,.0f} | {1 - b / a:.0%} | {found} |")
    lines += ["", f"| trials | level | epochs of {first} | epochs of {second} |", "|---:|---:|---:|---:|"]
    margin = study.comparison.margin
    for size in (s for s in SIZES if s <= trials):
        finals = [c.worth[size - 1] for key, c in pruned.items() if key.arm == second]
        level = statistics.median(finals) - margin
        cells = []
        for arm in (first, second):
            reached = [c.until(level) for key, c in pruned.items() if key.arm == arm]
            there = sorted(e for e in reached if e is not None)
            middle = f"{there[len(reached) // 2]:,}" if len(there) > len(reached) // 2 else "not reached"
            cells.append(f"{middle} ({len(there)} of {len(reached)} searches)")
        lines.append(f"| {size:,} | {level:.3f} | {' | '.join(cells)} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replicates", type=int, default=3)
    parser.add_argument("--trials", type=int, default=1000)
    asked = parser.parse_args()
    study, unpruned = (load_study(f"studies/simulated_cost.py:{name}") for name in ("study", "unpruned"))
    study, unpruned = (
        dataclasses.replace(s, search=dataclasses.replace(s.search, replicates=asked.replicates))
        for s in (study, unpruned)
    )
    began = time.perf_counter()
    curves = Curves.open(Path(study.datasets[0].curves))
    for line in table(study, unpruned, curves, asked.trials):
        print(line)
    print(f"\n{asked.replicates} searches of each arm; {time.perf_counter() - began:.0f} s.")


if __name__ == "__main__":
    main()
