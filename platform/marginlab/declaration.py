"""What a study declared when it began, on disk; a study that goes on under the same name must still say the same."""

from __future__ import annotations

import json
import time
import traceback
from pathlib import Path
from typing import Any

from marginlab import usercode
from marginlab.files import read_json, write_json
from marginlab.plan import Plan
from marginlab.study import Study
from marginlab.values import InputError, from_json, to_json

FORMAT = 1  # of study.json
_DECLARED = "comparison."  # begins the name of what can be declared anew


def load_study(spec: str) -> Study:
    """The study of a Python file: ``studies/demo.py``, or ``studies/demo.py:smallest`` for another name than ``study``."""
    name, _, attribute = spec.partition(":")
    path = Path(name)
    if not path.is_file():
        raise InputError(
            f"There is no study file {path}: give the path of a Python file that defines study = Study(...)."
        )
    try:
        module = usercode.load(path)
    except InputError as e:
        raise InputError(f"{_place(path, e)}: {e}") from None
    except Exception as e:
        raise InputError(f"{_place(path, e)}: {type(e).__name__}: {e}") from None
    attribute = attribute or "study"
    study = getattr(module, attribute, None)
    if not isinstance(study, Study):
        there = ", ".join(k for k, v in vars(module).items() if isinstance(v, Study)) or "none"
        raise InputError(f"{path} defines no Study called {attribute!r}; those it defines: {there}.")
    return study


def _place(path: Path, error: BaseException) -> str:
    """The line of the study file that led to the error."""
    lines = [
        f.lineno
        for f in traceback.extract_tb(error.__traceback__)
        if Path(f.filename) == path.resolve() or f.filename == str(path)
    ]
    if isinstance(error, SyntaxError):
        lines = [error.lineno]
    return f"{path}, line {lines[-1]}" if lines else str(path)


def read_plan(folder: Path) -> Plan:
    """The plan of a study that has begun."""
    record = _record(folder)
    usercode.use(folder)
    return Plan(from_json(record["study"]), dict(record["data"]), tuple(record["phantoms"]))


def _record(folder: Path) -> dict[str, Any]:
    path = folder / "study.json"
    if not path.exists():
        raise InputError(f"No study has begun in {folder}: start it with marginlab run.")
    record = read_json(path)
    if record.get("format") != FORMAT:
        raise InputError(
            f"{path} is of format {record.get('format')}, this MarginLab reads {FORMAT}: begin the study anew."
        )
    return dict(record)


def declare(folder: Path, plan: Plan) -> None:
    """Record the study. One of this name that began with other settings is left alone (``refuse_changes``)."""
    refuse_changes(folder, plan)
    path = folder / "study.json"
    record: dict[str, Any] = {"format": FORMAT, "study": to_json(plan.study), "data": plan.data}
    record |= {"phantoms": list(plan.phantoms), "began": time.time()}
    if path.exists():
        before = _record(folder)
        record |= {name: before[name] for name in ("began", "redeclared") if name in before}
    usercode.keep(folder, record["study"])
    write_json(path, record)


def refuse_changes(folder: Path, plan: Plan) -> None:
    """A study that goes on may grow, it may not change.

    More epochs, seeds, folds, replicates, arms or datasets extend a study. What would make its numbers incomparable with
    those already there is refused, with a line per difference.
    """
    if not (folder / "study.json").exists():
        return
    before = _record(folder)
    changes = differences(_pinned(before["study"], before["data"]), _pinned(to_json(plan.study), plan.data))
    if changes:
        redeclare = (
            f", or record another declaration, which the report will tell, with marginlab compare {plan.study.name} "
            "--redeclare STUDY.py"
            if all(c.startswith(_DECLARED) for c in changes)
            else ""
        )
        listed = "\n".join(f"  {c}" for c in changes)
        raise InputError(
            f"The study {plan.study.name!r} began with other settings:\n{listed}\n"
            "Give the changed study a new name, or begin it anew with marginlab run --fresh, which moves the old one aside"
            f"{redeclare}."
        )


def redeclare(folder: Path, study: Study) -> bool:
    """Replace what a study declared of its comparison. The change is kept beside it, with whether the test split was open.

    All else stays as it was recorded. False where nothing changes.

    Raises:
        InputError: ``study`` differs in what made its numbers, its contrast names an arm that the study has not, or it would be
            confirmatory after the fact.
    """
    record = _record(folder)
    now, before = to_json(study), record["study"]["comparison"]
    pinned = [_pinned(s, record["data"]) for s in (record["study"], now)]
    changes = [c for c in differences(*pinned) if not c.startswith(_DECLARED)]
    if changes or now["name"] != record["study"]["name"]:
        listed = "\n".join(f"  {c}" for c in changes) or f"  name: was {record['study']['name']}, is {now['name']}"
        raise InputError(
            f"Only the comparison can be declared anew, but the study {record['study']['name']!r} differs in more:\n{listed}\n"
            "Take these back, or give the changed study a new name."
        )
    if now["comparison"] == before:
        return False
    opened = any(read_json(p).get("test") for p in folder.glob("runs/**/result.json"))
    if opened and study.comparison.confirmatory:
        raise InputError(
            "What is declared after the test split was opened cannot be confirmatory: leave out confirmatory=True, or give the "
            "study a new name and run it anew."
        )
    usercode.use(folder)
    record["study"]["comparison"] = now["comparison"]
    from_json(record["study"])  # the arms that were recorded must have those of the contrast
    change = {"time": time.time(), "before": before, "after": now["comparison"], "test_opened": opened}
    record["redeclared"] = [*record.get("redeclared", []), change]
    write_json(folder / "study.json", record)
    return True


def redeclarations(folder: Path) -> list[dict[str, Any]]:
    """Oldest first: {"time": seconds since 1970, "before" and "after": the comparison as JSON, "test_opened": bool}."""
    return list(_record(folder).get("redeclared", []))


def _pinned(study: dict[str, Any], data: dict[str, str]) -> dict[str, dict[str, Any]]:
    """Of a study as JSON, what must stay as it is: by owner (the study, an arm, a dataset) and dotted name."""
    search, confirmation, comparison = study["search"], study["confirmation"], study["comparison"]
    out: dict[str, Any] = {"seed": study["seed"]}
    for name in ("max_epochs", "folds", "objective", "startup_trials", "pruner_startup_trials", "pruner_warmup_epochs"):
        out[f"search.{name}"] = search[name]
    out["confirmation.epochs"] = confirmation["epochs"] or search["max_epochs"]
    for name in ("primary", "contrast", "margin"):
        out[f"{_DECLARED}{name}"] = comparison[name]
    out[f"{_DECLARED}confirmatory"] = comparison.get("confirmatory", False)
    pinned = {"study": out}
    for arm in study["arms"]:
        parts = [_flat(part, arm[part]) for part in ("training", "space", "start")]
        pinned[f"arm {arm['name']}"] = {name: v for part in parts for name, v in part.items()}
    return pinned | {f"dataset {name}": {"fingerprint": fingerprint} for name, fingerprint in data.items()}


def _flat(prefix: str, data: Any) -> dict[str, Any]:
    if not isinstance(data, dict):
        return {prefix: data}
    out: dict[str, Any] = {prefix: None} if not data else {}
    for k, v in data.items():
        out |= _flat(f"{prefix}.{k}", v)
    return out


def differences(before: dict[str, dict[str, Any]], now: dict[str, dict[str, Any]]) -> list[str]:
    """A line per changed name. Arms and datasets that only one side has are additions (or have been set aside)."""
    lines = []
    for owner in [o for o in before if o in now]:
        for name in dict.fromkeys([*before[owner], *now[owner]]):
            old, new = before[owner].get(name, "(absent)"), now[owner].get(name, "(absent)")
            if old != new:
                where = name if owner == "study" else f"{owner}: {name}"
                lines.append(f"{where}: was {json.dumps(old)}, is {json.dumps(new)}")
    return lines


def told_apart(first: Plan, second: Plan) -> list[str]:
    """How two studies differ in what they share: settings, arms and datasets of the same names. A line per difference."""
    return differences(*(_pinned(to_json(p.study), p.data) for p in (first, second)))
