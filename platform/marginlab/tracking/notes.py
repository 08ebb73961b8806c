"""What MLflow shows above a run's figures, in Markdown: what the run is, what came of it, how to see it again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

NOTE = "mlflow.note.content"
KINDS = {
    "trial": "One configuration that a search tried. It never saw the test split.",
    "confirmation": "A search's winner, trained again on a seed that no search used. The test split was opened for it.",
    "default": "The arm as published, without any search, on the seeds and folds of confirmation. The test split was opened "
    "for it.",
    "incumbent": "What a search had found best at some point, trained again on a seed that the search did not use, so that "
    "luck in the search does not count. It never saw the test split.",
}
SIMULATED = "**Simulated**: recorded learning curves were replayed, nothing was trained."
PHANTOM = "**Measured on phantoms** (synthetic images): says nothing about patients."


def study_note(study: dict[str, Any], data: dict[str, str], phantoms: Sequence[str], answer: str = "") -> str:
    """The description of the study's run.

    Args:
        study: ``to_json`` of it.
        data: fingerprints by dataset.
        phantoms: names of the datasets that are synthetic.
        answer: its sentences, once there is an answer.
    """
    search, confirmation, comparison = study["search"], study["confirmation"], study["comparison"]
    arms = [f"| `{a['name']}` | {_type(a, 'loss')} | {_type(a, 'margin')} | {_searched(a)} |" for a in study["arms"]]
    simulated = [d["name"] for d in study["datasets"] if d.get("curves")]
    sets = [f"| `{name}` | {_kind(name, phantoms, simulated)} | `{at}` |" for name, at in data.items()]
    first, second = comparison["contrast"] or (None, None)
    declared = f"`{first}` against `{second}`" if first else "no contrast"
    parts = [
        f"**Question.** {study['question']}" if study["question"] else "",
        f"**Answer.** {answer}" if answer else "",
        SIMULATED if simulated else "",
        PHANTOM if phantoms else "",
        f"**Declared before the first run.** {declared} in `{comparison['primary']}`; differences up to "
        f"{comparison['margin']:g} make no difference.",
        "\n".join(["| arm | loss | margin policy | searched |", "|---|---|---|---|", *arms]),
        "\n".join(["| dataset | images | fingerprint |", "|---|---|---|", *sets]),
        f"**Search.** {search['epochs_budget']} epochs for each arm on each dataset, {search['max_epochs']} at most per "
        f"trial; {search['replicates']} replicate(s). **Confirmation.** Each winner on {confirmation['seeds']} fresh "
        f"seed(s) and {confirmation['folds']} fold(s).",
        "Below this run are all others, tagged `kind`, `search`, `dataset`, `arm`, `margin_policy`, `replicate`, `fold` and `seed`. "
        "The answer with its evidence: *Artifacts*, `report/report.html`.",
    ]
    return "\n\n".join(p for p in parts if p)


def _kind(name: str, phantoms: Sequence[str], simulated: Sequence[str]) -> str:
    what = "phantom" if name in phantoms else "images of people"
    return f"recorded curves ({what})" if name in simulated else what


def run_note(record: dict[str, Any], folder: str, result: dict[str, Any] | None = None, margins: str = "") -> str:
    """The description of a run.

    Args:
        record: of ``run.json``.
        folder: of the run, relative to the study's.
        result: of ``result.json``, once the run has ended.
        margins: where the margins ended, such as "epsilon 0.214, beta 0.031".
    """
    labels = record["labels"]
    set_here = [
        f"| `{path}` | {v:.6g} |" if isinstance(v, float) else f"| `{path}` | {v} |" for path, v in _params(labels)
    ]
    parts = [
        _outcome(result, margins) if result else "",
        f"{KINDS.get(labels['kind'], labels['kind'])} Arm `{labels['arm']}` on `{labels['dataset']}`, validated on fold "
        f"{labels['fold']}.",
        SIMULATED if labels.get("simulated") else "",
        PHANTOM if labels.get("phantom") else "",
        "\n".join(["| searched | value |", "|---|---|", *set_here]) if set_here else "",
        f"Train it again and compare: `marginlab replay {folder.rpartition('/')[2]}`",
    ]
    return "\n\n".join(p for p in parts if p)


def _outcome(result: dict[str, Any], margins: str) -> str:
    state, best = result["state"], result["best"]
    said = {"pruned": "Stopped early by the pruner: it was behind.", "failed": f"Failed: {result['reason']}"}.get(
        state, ""
    )
    figures = (
        ""
        if best is None
        else f"Best validation mAP **{best:.4f}** at epoch {result['best_epoch']} of {result['epochs']}."
    )
    test = (result.get("test") or {}).get("test/map")
    opened = "" if test is None else f"Test mAP {test:.4f}."
    return " ".join(p for p in (said, figures, opened, f"The margins ended at {margins}." if margins else "") if p)


def _params(labels: dict[str, Any]) -> list[tuple[str, Any]]:
    return sorted((labels.get("params") or {}).items())


def _type(arm: dict[str, Any], part: str) -> str:
    return str(arm["training"][part]["type"]).rpartition(":")[2]


def _searched(arm: dict[str, Any]) -> str:
    return ", ".join(f"`{path}`" for path in sorted(arm["space"])) or "nothing"
