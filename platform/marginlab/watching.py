"""How far a study is, read from its folder alone: the same while it runs, from another terminal, and after."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from marginlab.declaration import read_plan
from marginlab.files import read_json, read_lines
from marginlab.search import read_progress

STEPS = ("phantoms", "prepare", "ray", "search", "confirmation", "tracking", "report")


@dataclass(frozen=True)
class Snapshot:
    study: str
    step: str  # one of STEPS, "done" or "stopped"
    searches: dict[str, dict[str, Any]]
    confirmed: int
    confirmations: int
    epochs_done: int
    epochs_total: int
    training: list[str] = field(default_factory=list)  # runs at work, a line each
    failures: list[str] = field(default_factory=list)  # failed runs, a sentence each


def snapshot(folder: Path) -> Snapshot:
    """Look at a study's folder. Raises InputError where no study has begun."""
    plan = read_plan(folder)
    rules, confirmation = plan.study.search, plan.study.confirmation
    status = read_json(folder / "status.json") if (folder / "status.json").exists() else {"step": "stopped", "pid": 0}
    step = str(status["step"])
    if step not in ("done", "stopped") and not _alive(status):
        step = "stopped"
    searches = read_progress(folder / "optuna.db", plan)
    results: dict[str, list[dict[str, Any]]] = {"trial": [], "confirmation": []}
    training, failures, confirmation_epochs = [], [], 0
    for record in sorted(folder.glob("runs/**/run.json")):
        labels = read_json(record)["labels"]
        result = read_json(record.with_name("result.json")) if record.with_name("result.json").exists() else None
        if result is None:
            row = (read_lines(record.with_name("epochs.jsonl")) or [{"epoch": 0}])[-1]
            scored = f", val/map {row['val/map']:.3f}" if "val/map" in row else ""
            if record.with_name("attempts.json").exists():
                training.append(f"{name_of(labels)}: epoch {row['epoch']}{scored}")
            confirmation_epochs += row["epoch"] if labels["kind"] == "confirmation" else 0
            continue
        results[labels["kind"]].append(result)
        if labels["kind"] == "confirmation":
            confirmation_epochs += result["epochs"]
        if result["state"] == "failed":
            failures.append(f"{name_of(labels)}: {result['reason']}")
    keys = plan.searches()
    confirmations = plan.confirmation_count() * len(plan.study.datasets)
    search_total = len(keys) * rules.epochs_budget
    over = step in ("confirmation", "tracking", "report", "done")
    search_done = search_total if over else sum(s["epochs"] for s in searches.values())
    return Snapshot(
        study=plan.study.name,
        step=step,
        searches=searches,
        confirmed=len(results["confirmation"]),
        confirmations=confirmations,
        epochs_done=search_done + confirmation_epochs,
        epochs_total=search_total + confirmations * (confirmation.epochs or rules.max_epochs),
        training=training if step in ("search", "confirmation") else [],
        failures=failures,
    )


def name_of(labels: dict[str, Any]) -> str:
    """A run's name for people: ``oai adatriplet/automargin trial 07``."""
    if labels["kind"] == "trial":
        return f"{labels['dataset']} {labels['arm']} trial {labels['trial']:02d}"
    return f"{labels['dataset']} {labels['arm']} confirmation seed {labels['seed_index']} fold {labels['fold']}"


def _alive(status: dict[str, Any]) -> bool:
    if status.get("host") != os.uname().nodename:
        return True  # nothing can be said from here
    return Path(f"/proc/{status['pid']}").exists() if Path("/proc").exists() else True
