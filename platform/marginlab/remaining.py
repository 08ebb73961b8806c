"""What of a study is done and what is left, read from its folder. Nothing done: all is left."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from marginlab import study_database
from marginlab.files import read_json, read_lines
from marginlab.fresh import Fresh
from marginlab.plan import Plan, SearchKey, Task
from marginlab.search import HOPELESS, read_progress

NOTHING = {
    "epochs": 0,
    "trials": 0,
    "complete": 0,
    "failed": 0,
    "running": 0,
    "params": None,
}  # found by a search so far


@dataclass(frozen=True)
class SearchLeft:
    spent: int  # epochs
    left: int  # epochs; 0 where the search is over, even if a few that pay for no whole trial were not spent
    trials: int  # begun so far
    complete: int = 0  # of them


Runs = dict[SearchKey, tuple[int | None, ...]]  # an entry per run that has not ended: its last epoch, None: not begun


@dataclass(frozen=True)
class Remaining:
    """By search."""

    searches: dict[SearchKey, SearchLeft]
    runs: Runs  # of winners
    planned: int  # confirmation runs of each search
    searched_s: float  # seconds that were spent on searching, all sessions together
    defaults: Runs = field(default_factory=dict)  # of published defaults, at the first search of their arm
    incumbents: Runs = field(default_factory=dict)  # of those that the searches have had so far

    def fresh(self, key: SearchKey) -> list[tuple[str, tuple[int | None, ...]]]:
        """Of one search by kind, in the order in which they are trained."""
        kinds = (("confirmation", self.runs), ("default", self.defaults), ("incumbent", self.incumbents))
        return [(kind, runs.get(key, ())) for kind, runs in kinds]

    @property
    def begun(self) -> bool:
        return any(s.trials for s in self.searches.values())

    @property
    def epochs(self) -> int:
        """Left in the searches."""
        return sum(s.left for s in self.searches.values())


def remaining(plan: Plan, folder: Path) -> Remaining:
    """``folder``: the study's. A winner that later trials may still replace counts as the winner."""
    progress = read_progress(study_database.of(folder), plan)
    rules, confirmation = plan.study.search, plan.study.confirmation
    watch = folder / "search_seconds.json"
    searched = float(read_json(watch)["seconds"]) if watch.exists() else 0.0
    late = rules.time_budget_s is not None and searched >= rules.time_budget_s
    planned = confirmation.seeds * confirmation.folds
    searches: dict[SearchKey, SearchLeft] = {}
    runs: Runs = {}
    fresh = Fresh.of(plan, progress)
    for key in plan.searches():
        found = progress.get(str(key), dict(NOTHING))
        searches[key] = SearchLeft(found["epochs"], _epochs_left(plan, found, late), found["trials"], found["complete"])
        if found["params"] is not None:
            runs[key] = _unended(folder, plan.confirmations(key, found["params"]))
        else:
            runs[key] = (None,) * planned if searches[key].left else ()  # a search without a winner confirms nothing
    defaults = {key: _unended(folder, plan.defaults(key)) for key in fresh.defaulted}
    incumbents = {
        key: _unended(folder, (t for trial in fresh.again(key) for t in plan.incumbents(key, *trial)))
        for key in plan.searches()
    }
    return Remaining(searches, runs, planned, searched, defaults, incumbents)


def _epochs_left(plan: Plan, found: dict[str, Any], late: bool) -> int:
    """As ``search.Book`` spends them: a trial begins only if its whole cost is left."""
    rules = plan.study.search
    left = max(0, rules.epochs_budget - int(found["epochs"]))
    hopeless = found["trials"] >= HOPELESS and found["failed"] == found["trials"]
    if late or hopeless or left < rules.trial_epochs:
        return min(left, int(found["running"]) * rules.trial_epochs)
    return left


def _unended(folder: Path, tasks: Iterable[Task]) -> tuple[int | None, ...]:
    out: list[int | None] = []
    for task in tasks:
        path = folder / task.folder
        if not (path / "result.json").exists():
            rows = read_lines(path / "epochs.jsonl")
            out.append(int(rows[-1]["epoch"]) if rows else None)
    return tuple(out)
