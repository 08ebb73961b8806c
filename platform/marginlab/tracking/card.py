"""The champion's model card, in Markdown: what it was made from and how, how good it is, what it is for, and what it must never do."""

from __future__ import annotations

import re
from statistics import fmean
from typing import TYPE_CHECKING, Any

from marginlab.data.packed import PackedDataset
from marginlab.tracking import describe

if TYPE_CHECKING:
    from marginlab.tracking.champion import Champion

_AT = re.compile(r"test/(?P<metric>.+)_(?P<months>\d+)m")
_USE = (
    "Research on metric learning and on how medical images of one person change over time: finding earlier images of the "
    "same subject inside one dataset that its holders may work with."
)
MOST, MOST_ARMS = 5000, 8  # characters; rows
_REST = "\n\n(The rest is in the study's report.)"
_NEVER = (
    "Diagnosis, treatment, triage, or any other decision about a patient: it was not made or tested for that.",
    "Recognising people: matching images to persons against their will, or undoing the pseudonyms of a dataset, is an attack "
    "on their privacy, and in many places a crime.",
    "Identity checks, as at admission: it has no measured rate of false matches on the people you would check.",
    "Images of another source, scanner, view or population than those below without measuring it there first.",
)


def card(champion: Champion, dataset: PackedDataset, name: str, study: dict[str, Any]) -> str:
    """The card of a dataset's champion.

    Args:
        name: of the registered model.
        study: ``to_json`` of the study.
    """
    labels = champion.record["labels"]
    phantom = bool(labels["phantom"])
    blocks = [
        f"# {labels['arm']} on {champion.dataset}",
        "> **Measured on phantoms.** This network has seen synthetic images alone and says nothing about patients."
        if phantom
        else "> Trained on images of people: its embeddings are biometric templates. Keep them as you keep the images.",
        f"Embeds prepared images ({dataset.size} x {dataset.size} pixels, {dataset.channels} channel(s), uint8) so that "
        "images of one subject have a high cosine similarity.",
        f"## Intended use\n\n{_USE}",
        "\n".join(["## What it must not be used for", "", *(f"- {never}" for never in _NEVER)]),
        f"## Data\n\n{_data(dataset, phantom)}",
        f"## Protocol\n\n{_protocol(champion, study)}",
        f"## How it was chosen\n\n{_choice(champion)}",
        f"## Figures\n\n{_figures(champion)}",
        "## Limits\n\nThe figures hold for images of the same source, prepared the same way. This is the network of one seed "
        "and one fold: another seed gives other figures (the last column has their spread). Other scanners, views and ages, "
        "longer spans of time, and how it fares on groups of people were not measured.",
        f"## Loading\n\n```python\nmodel = mlflow.pyfunc.load_model('models:/{name}@champion')\nmodel.predict(images)  # uint8 "
        f"[n, {dataset.channels}, {dataset.size}, {dataset.size}] -> float32 [n, D]\n```\n\nTrain it again and compare: "
        f"`marginlab replay {champion.folder.rpartition('/')[2]}`",
    ]
    return _cut("\n\n".join(blocks))


def _cut(text: str) -> str:
    """At a line's end, where it is longer than MLflow's column (PostgreSQL refuses what sqlite takes)."""
    if len(text) <= MOST:
        return text
    return text[: MOST - len(_REST)].rpartition("\n")[0] + _REST


def _data(dataset: PackedDataset, phantom: bool) -> str:
    d = dataset.describe()
    rows = [
        f"| {part} | {c['images']} | {c['subjects']} | {c['queries']} |"
        for part, c in (("training and validation", d["splits"]["train"]), ("test", d["splits"]["test"]))
    ]
    made = f", synthetic ({dataset.phantom})" if phantom else ""
    return "\n".join(
        [
            f"`{dataset.name}`{made}: {d['images']} images of {d['subjects']} subjects, fingerprint `{dataset.fingerprint}`. "
            "All images of a subject are in one split and one fold.",
            "",
            "| split | images | subjects | queries |",
            "|---|---|---|---|",
            *rows,
        ]
    )


def _protocol(champion: Champion, study: dict[str, Any]) -> str:
    training = describe.flatten(champion.record["run"]["training"])
    named = ("network.type", "loss.type", "margin.type", "epochs", "batch_size", "lr", "weight_decay")
    settings = {k: training[k] for k in (*named, *champion.record["labels"].get("params", {})) if k in training}
    search, confirmation = study["search"], study["confirmation"]
    return "\n".join(
        [
            "An image of a subject's later visit is a query; the gallery is the first visits of all subjects. `map`: mean "
            "average precision; `cmc_1`: share of queries whose nearest image is the right subject's; `map_at_r`: precision "
            "among as many as there are right ones. `_24m`: queries 24 months after the first visit.",
            "",
            f"Searched with {search['epochs_budget']} epochs per arm, then trained on {confirmation['seeds']} fresh seed(s) "
            f"and {confirmation['folds']} fold(s); the weights are those of the epoch with the best validation mAP.",
            "",
            "| setting | value |",
            "|---|---|",
            *(f"| `{k}` | {v} |" for k, v in settings.items()),
        ]
    )


def _choice(champion: Champion) -> str:
    labels, run, result = champion.record["labels"], champion.record["run"], champion.result
    n, mean = len(champion.arm_best), fmean(champion.arm_best)
    ranked = sorted(champion.arms.items(), key=lambda a: -a[1])
    arms = [f"| `{arm}` | {v:.4f} |" for arm, v in ranked[:MOST_ARMS]]
    if len(ranked) > MOST_ARMS:
        arms.append(f"| {len(ranked) - MOST_ARMS} more | |")
    return "\n".join(
        [
            f"Of the arms of the study `{labels['study']}`, `{labels['arm']}` has the best mean validation mAP in confirmation: "
            f"{mean:.4f} over {n} run(s). This is the run with the median: {result['best']:.4f} (seed {run['seed']}, fold "
            f"{run['fold']}, epoch {result['best_epoch']}). The test split chose nothing.",
            "",
            "| arm | mean validation mAP |",
            "|---|---|",
            *arms,
        ]
    )


def _figures(champion: Champion) -> str:
    test = champion.result["test"]
    plain = [k for k in sorted(test) if not _AT.fullmatch(k)]
    lines = ["| test figure | this model | mean of the arm | lowest to highest |", "|---|---|---|---|"]
    for k in plain:
        low, high = champion.arm_range.get(k, (test[k], test[k]))
        lines.append(f"| {k} | {test[k]:.4f} | {champion.arm_test[k]:.4f} | {low:.4f} to {high:.4f} |")
    months: dict[int, dict[str, float]] = {}
    for k, v in test.items():
        if found := _AT.fullmatch(k):
            months.setdefault(int(found["months"]), {})[found["metric"]] = v
    if months:
        names = sorted(set().union(*months.values()))
        lines += ["", f"| months | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
        for month, found_here in sorted(months.items()):
            cells = [f"{found_here[m]:.4f}" if m in found_here else "–" for m in names]
            lines.append(f"| {month} | {' | '.join(cells)} |")
    return "\n".join(lines)
