"""What of a study is done and what is left, read from its folder. Nothing done: all is left."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from marginlab.files import read_json, read_lines
from marginlab.plan import Plan, SearchKey
from marginlab.search import HOPELESS, read_progress


@dataclass(frozen=True)
class SearchLeft:
    spent: int  # epochs
    left: int  # epochs; 0 where the search is over, even if a few that pay for no whole trial were not spent
    trials: int  # begun so far


@dataclass(frozen=True)
class Remaining:
    """By search. ``runs`` has an entry per confirmation run that has not ended: its last epoch, None where it has not begun."""

    searches: dict[SearchKey, SearchLeft]
    runs: dict[SearchKey, tuple[int | None, ...]]
    planned: int  # confirmation runs of each search
    searched_s: float  # seconds that were spent on searching, all sessions together

    @property
    def begun(self) -> bool:
        return any(s.trials for s in self.searches.values())

    @property
    def epochs(self) -> int:
        """Left in the searches."""
        return sum(s.left for s in self.searches.values())


def remaining(plan: Plan, folder: Path) -> Remaining:
    """``folder``: the study's. A winner that later trials may still replace counts as the winner."""
    progress = read_progress(folder / "optuna.db", plan)
    rules, confirmation = plan.study.search, plan.study.confirmation
    watch = folder / "search_seconds.json"
    searched = float(read_json(watch)["seconds"]) if watch.exists() else 0.0
    late = rules.time_budget_s is not None and searched >= rules.time_budget_s
    planned = confirmation.seeds * confirmation.folds
    searches, runs = {}, {}
    for key in plan.searches():
        found = progress.get(str(key), {"epochs": 0, "trials": 0, "failed": 0, "running": 0, "params": None})
        searches[key] = SearchLeft(found["epochs"], _epochs_left(plan, found, late), found["trials"])
        if found["params"] is not None:
            runs[key] = _unended(plan, folder, key, found["params"])
        else:
            runs[key] = (None,) * planned if searches[key].left else ()  # a search without a winner confirms nothing
    return Remaining(searches, runs, planned, searched)


def _epochs_left(plan: Plan, found: dict[str, Any], late: bool) -> int:
    """As ``search.Book`` spends them: a trial begins only if its whole cost is left."""
    rules = plan.study.search
    left = max(0, rules.epochs_budget - int(found["epochs"]))
    hopeless = found["trials"] >= HOPELESS and found["failed"] == found["trials"]
    if late or hopeless or left < rules.trial_epochs:
        return min(left, int(found["running"]) * rules.trial_epochs)
    return left


def _unended(plan: Plan, folder: Path, key: SearchKey, params: dict[str, Any]) -> tuple[int | None, ...]:
    out: list[int | None] = []
    for task in plan.confirmations(key, params):
        path = folder / task.folder
        if not (path / "result.json").exists():
            rows = read_lines(path / "epochs.jsonl")
            out.append(int(rows[-1]["epoch"]) if rows else None)
    return tuple(out)
