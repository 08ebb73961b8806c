"""A run folder in MLflow's words: name, tags, parameters, metric points. Plain data in and out."""

from __future__ import annotations

import json
import math
import re
from typing import Any

from marginlab.margins import SLOTS

_VALUE_LIMIT = 6000  # characters, of a parameter; longer ones are cut
_ILLEGAL = re.compile(r"[^\w\-. :/]")  # of a metric's or parameter's name


def flatten(config: Any, prefix: str = "") -> dict[str, str]:
    """Dotted path -> text, from ``to_json`` of a configuration: ``{"loss.type": "AdaTriplet", "loss.lam": "1.0", ...}``.

    The paths are those that a search space uses. A nested value's type is its class name; outside marginlab, with its module.
    """
    out: dict[str, str] = {}
    for key, v in config.items():
        if isinstance(v, dict):
            out |= flatten(v, f"{prefix}{key}.")
        elif key == "type":
            module, _, name = v.partition(":")
            if prefix:  # the configuration's own type says nothing
                out[f"{prefix}type"] = name if module.startswith("marginlab.") else v
        else:
            text = v if isinstance(v, str) else json.dumps(v)
            out[legal(f"{prefix}{key}")] = text[:_VALUE_LIMIT]
    return out


def legal(key: str) -> str:
    return _ILLEGAL.sub("_", key)


def run_name(labels: dict[str, Any], study: dict[str, Any]) -> str:
    """Such as ``oai adatriplet/automargin trial 07``; replicate and fold appear where a search has several.

    Args:
        labels: of the run folder.
        study: ``to_json`` of the study.
    """
    search = study["search"]
    words = [labels["dataset"], labels["arm"]]
    of_trial = labels["kind"] in ("trial", "incumbent")
    if search["replicates"] > 1:
        words.append(f"replicate {labels['replicate']}")
    words.append(f"{labels['kind']} {labels['trial']:02d}" if of_trial else labels["kind"])
    if labels["kind"] != "trial":  # on a fresh seed
        words.append(f"seed {labels['seed_index']} fold {labels['fold']}")
    elif len(search["folds"]) > 1:
        words.append(f"fold {labels['fold']}")
    return " ".join(words)


def run_tags(record: dict[str, Any], folder: str) -> dict[str, str]:
    """The labels as text, the search that the run belongs to, and which run and folder this is.

    Args:
        record: of ``run.json``.
        folder: of the run, relative to the study's. Two replicates may hold the same run: the folder tells them apart.
    """
    labels = record["labels"]
    tags = {k: _text(v) for k, v in labels.items() if not isinstance(v, (dict, list))}
    tags["search"] = f"{labels['dataset']}/{labels['arm']}/r{labels['replicate']}"
    return {**tags, "marginlab.run_id": record["id"], "marginlab.run_folder": folder}


def points(values: dict[str, Any]) -> dict[str, float]:
    """The finite numbers among a row's metrics. MLflow would store an infinity as 1.8e308."""
    numbers = {k: v for k, v in values.items() if isinstance(v, (int, float)) and not isinstance(v, bool)}
    return {legal(k): float(v) for k, v in numbers.items() if k not in ("epoch", "time") and math.isfinite(v)}


def final_points(result: dict[str, Any]) -> dict[str, float]:
    """What is known once a run has ended: its best validation figure, and the test figures of a confirmation run."""
    test = {k if k.startswith("test/") else f"test/{k}": v for k, v in (result.get("test") or {}).items()}
    return points({**test, "best/val_map": result["best"]})


def final_margins(last: dict[str, Any]) -> dict[str, float]:
    """Where the margins ended, whatever set them: ``final/epsilon``, ``final/beta``. Comparable over all policies.

    Args:
        last: the row of the last epoch.
    """
    return points({f"final/{slot}": last.get(f"margin/{slot}") for slot in SLOTS})


def margins_text(last: dict[str, Any]) -> str:
    """Such as "epsilon 0.214, beta 0.031"; empty without margins."""
    return ", ".join(f"{key.removeprefix('final/')} {v:.4g}" for key, v in final_margins(last).items())


def stamp(seconds: float) -> int:
    """MLflow's timestamps are whole milliseconds."""
    return round(seconds * 1000)


def _text(v: Any) -> str:
    return str(v).lower() if isinstance(v, bool) else str(v)
