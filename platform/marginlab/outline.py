"""What ``marginlab plan`` shows: a study's searches, runs, epochs, time, disk, resources and reach, without doing any of it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from marginlab.cluster.machines import Machines, sharing
from marginlab.cluster.preflight import concurrency, gpus_per_worker, launcher
from marginlab.compare import Design, answers, resolution
from marginlab.counting import assumed, expected_incumbents, most_incumbents
from marginlab.declaration import read_plan
from marginlab.disk import disk
from marginlab.estimate import Estimate, duration
from marginlab.files import read_json
from marginlab.networks.weights import files_of
from marginlab.plan import Plan
from marginlab.remaining import Remaining, remaining
from marginlab.results import Results
from marginlab.simulated import Curves
from marginlab.study import Arm, Dataset, Resources, Study
from marginlab.workspace import Workspace


def planned(study: Study, workspace: Workspace) -> Plan:
    """The plan with the fingerprints of what is prepared. One that is not has that with which the study began, if it did."""
    folder = workspace.study(study.name)
    began = read_plan(folder).data if (folder / "study.json").exists() else {}
    return Plan(
        study, {d.name: _fingerprint(d, workspace) or began.get(d.name, "not prepared") for d in study.datasets}
    )


def _fingerprint(dataset: Dataset, workspace: Workspace) -> str:
    if dataset.curves is not None:
        return Curves.open(workspace.packed(dataset)).fingerprint
    info = workspace.packed(dataset) / "dataset.json"
    return str(read_json(info)["fingerprint"]) if info.exists() else ""


def outline(plan: Plan, workspace: Workspace, machines: Machines, forecast: Estimate) -> RenderableType:
    """
    Args:
        machines: what there is to train on, checked by ``preflight``.
        forecast: of what is left.
    """
    study, left = plan.study, remaining(plan, workspace.study(plan.study.name))
    table = Table(box=None, pad_edge=False, show_header=False)
    for row in _rows(plan, workspace, machines, forecast):
        table.add_row(*row)
    parts: list[RenderableType] = [Text(f"{study.name}  {study.question}", style="bold"), _arms(study), Text(""), table]
    if left.begun:
        parts += [Text(""), _progress(plan, left)]
    return Group(*parts)


def _rows(plan: Plan, workspace: Workspace, machines: Machines, forecast: Estimate) -> Iterator[tuple[str, str]]:
    study = plan.study
    search, confirmation = study.search, study.confirmation
    keys, runs = plan.searches(), plan.confirmation_count() * len(study.datasets)
    epochs = plan.epochs("confirmation")
    defaults = _defaults(study)
    leaders = len(keys) * most_incumbents(plan)
    yield "datasets", ", ".join(_dataset(d, forecast) for d in study.datasets)
    if absent := _absent(study, workspace):
        yield "missing here", ", ".join(absent)
    yield (
        "search",
        f"{len(keys)} searches of {search.epochs_budget} epochs, at least {search.epochs_budget // search.trial_epochs} trials "
        f"each of at most {search.trial_epochs}; {_how('Search', search.resources, machines, search.max_concurrent)}",
    )
    yield (
        "confirmation",
        f"{runs} runs of {epochs} epochs ({confirmation.seeds} seeds x {confirmation.folds} folds for each of "
        f"{len(keys)} winners); {_how('Confirmation', confirmation.resources, machines, None)}",
    )
    if defaults:
        arms = len(study.arms) * len(study.datasets)
        yield (
            "published defaults",
            f"{defaults} runs of {epochs} epochs for {arms} of them, fewer where one wins its search: its runs serve both",
        )
    if leaders:
        expected = len(keys) * expected_incumbents(plan)
        yield (
            "incumbents",
            f"up to {leaders} runs of {search.max_epochs} epochs, probably about {expected:.0f}: each search's best so far, at "
            f"every point of it, on {confirmation.incumbents} further seeds",
        )
    total = len(keys) * search.epochs_budget + (runs + defaults) * epochs + leaders * search.max_epochs
    yield "epochs in all", f"{'up to ' if leaders else ''}{total}"
    yield "resources", _needs(study, machines)
    yield "time left" if (workspace.study(study.name) / "study.json").exists() else "time", _time(forecast)
    yield "disk", _disk(plan, workspace, forecast)
    contrast = study.comparison.contrast
    if contrast:
        yield (
            "declared",
            f"{study.comparison.primary}: {contrast[0]} against {contrast[1]}, equivalent within {study.comparison.margin:g}",
        )
    yield "can show", _reach(study, workspace)
    yield "counts as", _standing(study)


def _defaults(study: Study) -> int:
    """The most runs that published defaults take."""
    rules = study.confirmation
    return len(study.arms) * len(study.datasets) * rules.seeds * rules.folds if rules.defaults else 0


def _arms(study: Study) -> Table:
    arms = Table(box=None, pad_edge=False, header_style="bold")
    for header in ("arm", "margin policy", "searched", "starts with"):
        arms.add_column(header)
    for arm in study.arms:
        arms.add_row(arm.name, arm.margin_policy, _space(arm), _start(arm))
    return arms


def _space(arm: Arm) -> str:
    return ", ".join(f"{path} {allowed}" for path, allowed in arm.space.items()) or "nothing"


def _start(arm: Arm) -> str:
    return "; ".join(
        ", ".join(
            f"{p.split('.')[-1]} {v:g}" if isinstance(v, float) else f"{p.split('.')[-1]} {v}" for p, v in s.items()
        )
        for s in arm.starts()
    )


def _absent(study: Study, workspace: Workspace) -> list[str]:
    """What has to be there before the study can run."""
    roots = [d.root for d in study.datasets if d.root and assumed(d, workspace)]
    return roots + sorted(f for f in files_of(study.arms) if not Path(f).expanduser().is_file())


def _dataset(dataset: Dataset, forecast: Estimate) -> str:
    where = "phantom" if dataset.phantom is not None else str(dataset.root)
    where = f"simulated: curves of {dataset.curves} are replayed" if dataset.curves else where
    c = forecast.counted.get(dataset.name)
    images = f"; {c.train} images train, {c.validation} validate, {c.test} test" if c else ""
    images += ", as published: they are not here" if c and c.assumed else ""
    return f"{dataset.name} ({where}{images})"


def _how(what: str, resources: Resources, machines: Machines, most: int | None) -> str:
    at_once = concurrency(what, resources, machines)
    gpus = gpus_per_worker(resources, machines)
    each = f"{resources.workers} x ({resources.cpus:g} CPU" + (f", {gpus:g} GPU)" if gpus else ")")
    each += f", {sharing(gpus)} to a GPU" if sharing(gpus) > 1 else ""
    how = "Ray Train" if what == "Confirmation" or launcher(resources, machines) == "train" else "inline"
    return f"{min(at_once, most or at_once)} at once, each {each}, {how}"


def _needs(study: Study, machines: Machines) -> str:
    """What the runs at once take of what there is."""
    parts = []
    for what, resources, most in (
        ("Search", study.search.resources, study.search.max_concurrent),
        ("Confirmation", study.confirmation.resources, None),
    ):
        at_once = concurrency(what, resources, machines)
        workers = min(at_once, most or at_once) * resources.workers
        taken = {"CPU": workers * resources.cpus, "GPU": workers * gpus_per_worker(resources, machines)}
        shown = (f"{taken[k]:g} of {machines.total(k):g} {k}s" for k in taken if taken[k] or machines.total(k))
        parts.append(f"{what.lower()} takes {' and '.join(shown)}")
    many = sum(n for n, _ in machines.kinds) > 1
    return "; ".join(parts) + (f"; there are {machines}" if many else "")


def _time(forecast: Estimate) -> str:
    if forecast.unknown:
        return forecast.unknown
    steps = ", ".join(f"{step} {duration(s)}" for step, s in forecast.steps.items())
    if not forecast.source:
        return f"nothing is left to train; run again, it takes about {duration(forecast.total)} ({steps})"
    return f"about {duration(forecast.total)} ({steps}; from {forecast.source})"


def _disk(plan: Plan, workspace: Workspace, forecast: Estimate) -> str:
    there = next(p for p in (workspace.root, *workspace.root.parents) if p.exists())
    free = f"{_bytes(shutil.disk_usage(there).free)} are free"
    if not forecast.counted:
        return free
    d = disk(plan, forecast.counted)
    return (
        f"about {_bytes(d.total)}: run folders {_bytes(d.runs)} (at most {_bytes(d.most)}), MLflow's copies {_bytes(d.copies)}, "
        f"prepared images {_bytes(d.data)}" + (f", phantoms' files {_bytes(d.raw)}" if d.raw else "") + f"; {free}"
    )


def _bytes(n: float) -> str:
    for limit, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB")):
        if n >= limit:
            return f"{n / limit:.{1 if n < 10 * limit else 0}f} {unit}"
    return f"{n / 1e3:.0f} kB"


def _reach(study: Study, workspace: Workspace) -> str:
    """The smallest p and difference. SD is that of the paired differences, over seeds."""
    r = resolution(study.confirmation.seeds)
    if r.p is None:
        return "nothing: one seed has no spread, so no difference can be told from chance"
    said = (
        f"with {r.n} seeds, p is {r.p:.2g} at best (paired sign flips); the 95% interval excludes zero from a mean "
        f"difference of {r.shown:.1f} SD on, and in four studies of five where the true one is {r.found:.1f} SD"
    )
    folder = workspace.study(study.name)
    observed = answers(Results.open(folder)) if (folder / "study.json").exists() else []
    for a in observed:
        units = a.difference.reach(study.confirmation.seeds)
        if units is not None and a.difference.sd is not None:
            others = " and ".join(what for what in a.difference.covers if what != "seeds")
            so = f"with what {others} add" if others else "so"
            said += (
                f"; {a.dataset}: SD {a.difference.sd:.2g} so far, {so} {units[0]:.2g} and {units[1]:.2g} in {a.metric}"
            )
    return said


def _standing(study: Study) -> str:
    """Whether the answer can be called confirmatory."""
    design = Design(study.confirmation.seeds, len(study.datasets) if study.comparison.contrast else 0)
    if not design.confirmatory:
        return f"exploratory: {design.why()}"
    if not study.comparison.confirmatory:
        return "exploratory, as declared; its seeds would do for Comparison(confirmatory=True)"
    if study.search.replicates == 1:
        return "confirmatory for the configurations that the searches find; Search(replicates=3) would include the searches"
    return "confirmatory"


def _progress(plan: Plan, left: Remaining) -> Table:
    """What is done and what is left, search by search."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for header in ("begun", "trials", "epochs spent", "epochs left", "confirmed runs", "runs left", "their epochs"):
        table.add_column(header, justify="left" if header == "begun" else "right")
    for key in plan.searches():
        s, runs = left.searches[key], left.runs[key]
        further = [(kind, done) for kind, there in left.fresh(key) for done in there]
        todo = sum(plan.epochs(kind) - (done or 0) for kind, done in further)
        confirmed = left.planned - len(runs) if s.trials else 0
        numbers = (s.trials, s.spent, s.left, confirmed, len(further), todo)
        table.add_row(str(key).removesuffix("/r0"), *map(str, numbers))
    return table
