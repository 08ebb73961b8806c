"""What ``marginlab plan`` shows: a study's searches, runs, epochs, disk and resources, counted without doing any of it."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from marginlab.cluster.preflight import concurrency, gpus_per_worker, launcher, preflight
from marginlab.networks import build_seeded
from marginlab.plan import Plan
from marginlab.search import read_progress
from marginlab.study import Arm, Resources, Study
from marginlab.workspace import Workspace


def outline(study: Study, workspace: Workspace, available: dict[str, float]) -> RenderableType:
    """Raises InputError where the study's runs do not fit the resources (``{"CPU": n, "GPU": m}``)."""
    preflight(study, available)
    plan = Plan(study, {d.name: "not prepared" for d in study.datasets})
    search, confirmation = study.search, study.confirmation
    keys = plan.searches()
    runs = plan.confirmation_count() * len(study.datasets)
    epochs = confirmation.epochs or search.max_epochs
    parts: list[RenderableType] = [Text(f"{study.name}  {study.question}", style="bold")]

    arms = Table(box=None, pad_edge=False, header_style="bold")
    for header in ("arm", "margin policy", "searched", "starts with"):
        arms.add_column(header)
    for arm in study.arms:
        arms.add_row(arm.name, arm.margin_policy, _space(arm), _start(arm))
    parts += [arms, Text("")]

    table = Table(box=None, pad_edge=False, show_header=False)
    known = ", ".join(f"{d.name} ({'phantom' if d.phantom else d.root})" for d in study.datasets)
    table.add_row("datasets", known)
    table.add_row(
        "search",
        f"{len(keys)} searches of {search.epochs_budget} epochs, at least {search.epochs_budget // search.trial_epochs} trials "
        f"each of at most {search.trial_epochs}; {_fit('Search', search.resources, available)}",
    )
    table.add_row(
        "confirmation",
        f"{runs} runs of {epochs} epochs ({confirmation.seeds} seeds x {confirmation.folds} folds for each of "
        f"{len(keys)} winners); {_fit('Confirmation', confirmation.resources, available)}",
    )
    total = len(keys) * search.epochs_budget + runs * epochs
    table.add_row("epochs in all", str(total))
    most = len(keys) * search.epochs_budget + runs  # a search of trials that are all pruned at once
    likely = len(keys) * 2 * (search.epochs_budget // search.trial_epochs) + runs
    size = max(_checkpoint_bytes(arm) for arm in study.arms)
    table.add_row("disk for runs", f"about {likely * size / 1e6:.0f} MB, never above {most * size / 1e6:.0f} MB")
    contrast = study.comparison.contrast
    if contrast:
        table.add_row(
            "declared",
            f"{study.comparison.primary}: {contrast[0]} against {contrast[1]}, equivalent within {study.comparison.margin:g}",
        )
    begun = read_progress(workspace.study(study.name) / "optuna.db", plan)
    if begun:
        table.add_row(
            "begun",
            f"{sum(s['epochs'] for s in begun.values())} search epochs are spent (marginlab status {study.name})",
        )
    return Group(*parts, table)


def _space(arm: Arm) -> str:
    return ", ".join(f"{path} {allowed}" for path, allowed in arm.space.items()) or "nothing"


def _start(arm: Arm) -> str:
    return "; ".join(
        ", ".join(
            f"{p.split('.')[-1]} {v:g}" if isinstance(v, float) else f"{p.split('.')[-1]} {v}" for p, v in s.items()
        )
        for s in arm.starts()
    )


def _fit(what: str, resources: Resources, available: dict[str, float]) -> str:
    at_once = concurrency(what, resources, available)
    gpus = gpus_per_worker(resources, available)
    each = f"{resources.workers} x ({resources.cpus:g} CPU" + (f", {gpus:g} GPU)" if gpus else ")")
    how = "Ray Train" if what == "Confirmation" or launcher(resources, available) == "train" else "inline"
    return f"{at_once} at once, each {each}, {how}"


def _checkpoint_bytes(arm: Arm) -> int:
    """Network three times over (Adam's two moments), and the best network once more."""
    network = build_seeded(arm.training.network, 1, 0)
    return 4 * sum(p.numel() * p.element_size() for p in network.parameters()) + 400_000  # and embeddings, rows
