"""How far a study is, read from its folder alone: the same while it runs, from another terminal, and after."""

from __future__ import annotations

import re
import shlex
import time
from collections import Counter
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

from marginlab import bucket, faults, study_database
from marginlab.declaration import read_plan
from marginlab.files import read_json, read_lines
from marginlab.fresh import KINDS, Fresh
from marginlab.lock import held
from marginlab.plan import Plan
from marginlab.postgres import DatabaseAway
from marginlab.results import step_seconds
from marginlab.search import read_progress

STEPS = ("phantoms", "prepare", "ray", "estimate", "search", "confirmation", "tracking", "report")
ENDED = ("done", "stopped")
PACE_WINDOW_S = 300.0  # the last minutes: what the pace is measured over
PACE_EPOCHS = 4  # epochs that a pace needs
AHEAD_S = 60.0  # by how much the clocks of two machines may differ; more is a clock that was set


@dataclass(frozen=True)
class Failure:
    """A trial, or a run on fresh seeds, that failed."""

    name: str  # for people: "oai adatriplet/fixed trial 07"
    reason: str
    run: Path | None  # the folder of the run to replay; None where the parameters made no run

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}"


@dataclass(frozen=True)
class Snapshot:
    study: str
    step: str  # one of STEPS, "starting", "done" or "stopped"
    searches: dict[str, dict[str, Any]]
    confirmed: int  # runs on fresh seeds that have ended
    confirmations: int  # all of them; of incumbents those that the searches have had so far
    epochs_done: int
    epochs_total: int
    training: list[str] = field(default_factory=list)  # runs at work, a line each
    failures: list[Failure] = field(default_factory=list)
    pace: float | None = None  # epochs per minute; None where too few have ended to tell, and where nothing is at work
    seconds_left: float | None = None  # at this pace
    mended: list[str] = field(
        default_factory=list
    )  # what went wrong around the study and was tried again, a sentence each
    away: str = ""  # a sentence, where the study database does not answer: the searches are those last seen


@dataclass(frozen=True)
class _Seen:
    """What a look takes from one run folder."""

    path: Path
    labels: dict[str, Any]
    result: dict[str, Any] | None
    times: tuple[float, ...]  # when its epochs of training ended, seconds since 1970
    last: dict[str, Any]  # its last row

    @property
    def confirms(self) -> bool:
        return self.labels["kind"] in KINDS


def snapshot(folder: Path) -> Snapshot:
    """Look at a study's folder. Raises InputError where no study has begun."""
    plan = read_plan(folder)
    rules = plan.study.search
    step, since = _step(folder)
    searches, away = _searches(folder, plan)
    runs = [_look(p.parent) for p in sorted(folder.glob("runs/**/run.json"))]
    fresh = Fresh.of(plan, searches)
    confirming = [r for r in runs if r.confirms and fresh.wants(r.labels)]
    ended = [r for r in confirming if r.result is not None]
    counts = fresh.counts()
    confirming_total = sum(plan.epochs(kind) * count for kind, count in counts.items())
    search_total = len(plan.searches()) * rules.epochs_budget
    over = step in ("confirmation", "tracking", "report", "done")
    search_done = search_total if over else sum(s["epochs"] for s in searches.values())
    working = step in ("search", "confirmation")
    pace = _pace(runs, since) if working else None
    # A run that failed early leaves nothing to do, so what is left is not the total less what was done.
    gone = (plan.epochs(r.labels["kind"]) if r.result else r.last.get("epoch", 0) for r in confirming)
    still = confirming_total - sum(gone)
    left = search_total - search_done + max(still, 0)
    return Snapshot(
        study=plan.study.name,
        step=step,
        searches=searches,
        confirmed=len(ended),
        confirmations=sum(counts.values()),
        epochs_done=search_done + sum(r.last.get("epoch", 0) for r in confirming),
        epochs_total=search_total + confirming_total,
        training=[_at_work(r) for r in runs if working and r.result is None and _begun(r)],
        failures=_failures(runs, searches),
        pace=pace,
        seconds_left=left / pace * 60 if pace else None,
        mended=[str(f) for f in faults.read(folder)],
        away=away,
    )


_last_seen: dict[Path, dict[str, dict[str, Any]]] = {}


def _searches(folder: Path, plan: Plan) -> tuple[dict[str, dict[str, Any]], str]:
    """How far they are; while their database is away, what was last seen of them, and a sentence."""
    try:
        _last_seen[folder] = read_progress(study_database.of(folder), plan)
        return _last_seen[folder], ""
    except DatabaseAway as e:
        summary = folder / "summary.json"
        kept = read_json(summary)["searches"] if summary.exists() else {}
        return _last_seen.get(folder, kept), str(e)


def _pace(runs: list[_Seen], since: float) -> float | None:
    """Epochs per minute, from when epochs ended; from how long they took, while a clock that was set back says otherwise."""
    now = time.time()
    if set_back([r.times for r in runs]) > now - PACE_WINDOW_S:
        took = [sum(step_seconds(r.last).values()) for r in runs if r.result is None and _begun(r)]
        return sum(60 / seconds for seconds in took if seconds > 0) or None
    return measure([t for r in runs for t in r.times], since, now)


def measure(times: list[float], since: float, now: float) -> float | None:
    """The pace in epochs per minute: over the last minutes, or over the last few epochs where those took longer.

    Args:
        times: when epochs ended, in any order.
        since: when the step began: other steps have another pace. All in seconds since 1970.
    """
    began = since if since <= now + AHEAD_S else float("-inf")  # the clock was set back after the step began
    told = sorted(t for t in times if began <= t <= now + AHEAD_S)
    recent = [t for t in told if t > now - PACE_WINDOW_S]
    counted = recent if len(recent) >= PACE_EPOCHS else told[-PACE_EPOCHS:]
    if len(counted) < PACE_EPOCHS:
        return None
    # The first one opens the interval. That it lasts until now lets the pace fall when nothing ends any more.
    return 60 * (len(counted) - 1) / max(now - counted[0], counted[-1] - counted[0], 1e-3)


def set_back(runs: list[tuple[float, ...]]) -> float:
    """The last time before a clock was set back, as it was told then: up to there the same times are told twice.

    ``runs``: when the epochs of each run ended, in their order.
    """
    steps = [(a, b) for times in runs for a, b in pairwise(times)]
    return max((a for a, b in steps if b < a - AHEAD_S), default=float("-inf"))


def _step(folder: Path) -> tuple[str, float]:
    """The step a study is in and since when. One that nobody holds the lock of is not at work, whatever it said last."""
    path, lock = folder / "status.json", folder.with_name(folder.name + ".lock")
    status = read_json(path) if path.exists() else {"step": "stopped"}
    step, since = str(status["step"]), float(status.get("since", 0.0))
    if not held(lock):
        return (step if step == "done" or bucket.beats(lock) else "stopped"), since
    holder = read_lines(lock)
    if step in ENDED and holder and holder[0]["since"] > since:
        return "starting", since  # run again, and not yet come to a step of its own
    return step, since


def _look(run: Path) -> _Seen:
    """Folders of runs that have ended are read once in a process: a study that is watched has hundreds of them."""
    labels = _labels(run, (run / "run.json").stat().st_mtime_ns)
    try:
        return _ended(run, (run / "result.json").stat().st_mtime_ns, labels["kind"])
    except FileNotFoundError:
        times, last = _rows(run)
        return _Seen(run, labels, None, times, last)


@lru_cache(maxsize=100_000)
def _labels(run: Path, written: int) -> dict[str, Any]:
    return dict(read_json(run / "run.json")["labels"])


@lru_cache(maxsize=100_000)
def _ended(run: Path, written: int, kind: str) -> _Seen:
    times, last = _rows(run)
    labels = _labels(run, (run / "run.json").stat().st_mtime_ns)
    return _Seen(run, labels, read_json(run / "result.json"), times, {"epoch": last.get("epoch", 0)})


def _rows(run: Path) -> tuple[tuple[float, ...], dict[str, Any]]:
    rows = read_lines(run / "epochs.jsonl")
    return tuple(r["time"] for r in rows if r["epoch"] > 0), rows[-1] if rows else {}


def _begun(run: _Seen) -> bool:
    return (run.path / "attempts.json").exists()


def _at_work(run: _Seen) -> str:
    scored = f", val/map {run.last['val/map']:.3f}" if "val/map" in run.last else ""
    return f"{name_of(run.labels)}: epoch {run.last.get('epoch', 0)}{scored}"


def _search(labels: dict[str, Any]) -> str:
    return f"{labels['dataset']}/{labels['arm']}/r{labels['replicate']}"


def _failures(runs: list[_Seen], searches: dict[str, dict[str, Any]]) -> list[Failure]:
    """Failed trials in their order, once each though they may have a run per fold, then failed runs on fresh seeds."""
    trials: dict[tuple[str, int], list[_Seen]] = {}
    for r in runs:
        if not r.confirms:
            trials.setdefault((_search(r.labels), r.labels["trial"]), []).append(r)
    out = []
    for (search, number), folds in trials.items():
        failed = [r for r in folds if r.result is not None and r.result["state"] == "failed"]
        told = searches.get(search, {}).get("failures", {}).get(number)
        if failed or told is not None:
            # The fold that failed is the last one to begin; those after it were given its result.
            run = next((r for r in reversed(failed or folds) if _begun(r)), (failed or folds)[0])
            reason = told or (run.result or {}).get("reason", "")
            out.append(Failure(name_of(run.labels), reason, run.path))
    for search, found in searches.items():
        place = search.rpartition("/")[0].replace("/", " ", 1)
        for number, reason in found["failures"].items():
            if (search, number) not in trials:
                out.append(Failure(f"{place} trial {number:02d}", reason, None))
    confirming = [r for r in runs if r.confirms and r.result is not None and r.result["state"] == "failed"]
    return out + [Failure(name_of(r.labels), (r.result or {})["reason"], r.path) for r in confirming]


def by_reason(failures: list[Failure]) -> list[tuple[int, Failure]]:
    """How often each reason occurs, with the first failure that has it, most frequent first. Numbers make no other reason."""
    keys = [re.sub(r"[-+]?\b(\d[\d.]*(e[-+]?\d+)?|nan|inf)\b", "#", f.reason) for f in failures]
    first = dict(reversed([(k, f) for k, f in zip(keys, failures, strict=True)]))
    return [(count, first[key]) for key, count in Counter(keys).most_common()]


@lru_cache(maxsize=1000)  # a live view asks for it many times a second
def replay_command(run: Path) -> str:
    """What reproduces a run of a study in a workspace."""
    study = next(p for p in run.parents if p.name == "runs").parent
    workspace = study.parents[1]
    same = list(workspace.glob(f"studies/*/runs/*/*/*/{run.name}"))  # another study may have the same run
    shown = workspace.relative_to(Path.cwd()) if workspace.is_relative_to(Path.cwd()) else workspace
    name = run.name if len(same) == 1 else str(shown / run.relative_to(workspace))
    return f"marginlab replay {shlex.quote(name)} --workspace {shlex.quote(str(shown))}"


def dashboard_line(folder: Path) -> str:
    """The command that opens a study's searches in Optuna's own dashboard, which has to be installed for it."""
    return f"{study_database.dashboard(study_database.of(folder))}  # pip install optuna-dashboard"


def name_of(labels: dict[str, Any]) -> str:
    """A run's name for people: ``oai adatriplet/automargin trial 07``."""
    what = f"{labels['dataset']} {labels['arm']} {labels['kind']}"
    if "trial" in labels:
        what += f" {labels['trial']:02d}"
    return what if labels["kind"] == "trial" else f"{what} seed {labels['seed_index']} fold {labels['fold']}"
