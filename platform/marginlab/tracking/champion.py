"""A dataset's champion: chosen by validation, registered as a model that anyone can load.

The champion is the arm with the best mean validation figure in confirmation, and of its runs the one with the median.
The test figure chooses nothing; the model card quotes it.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

import polars as pl

import marginlab
from marginlab.data.packed import PackedDataset
from marginlab.files import read_json
from marginlab.results import Results
from marginlab.tracking.projector import Tracker
from marginlab.tracking.store import Store

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

ALIAS = "champion"


@dataclass(frozen=True)
class Champion:
    dataset: str
    arm: str
    folder: str  # of the run, relative to the study's
    record: dict[str, Any]  # run.json
    result: dict[str, Any]  # result.json
    arm_best: tuple[float, ...]  # validation figures of the arm's confirmation runs, ascending
    arm_test: dict[str, float]  # mean test figures of the same runs


def champions(study_folder: Path) -> list[Champion]:
    """The champions of all datasets whose confirmation has complete runs, by dataset name."""
    confirmed = Results.open(study_folder).runs().filter(pl.col("kind") == "confirmation", pl.col("current"))
    current = set(confirmed["folder"])  # without the runs of winners that a longer search has replaced
    runs: dict[str, dict[str, list[tuple[float, str]]]] = {}
    records: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {}
    for path in sorted((study_folder / "runs").rglob("run.json")):
        record, folder = read_json(path), str(path.parent.relative_to(study_folder))
        labels = record["labels"]
        if folder not in current or not (path.parent / "result.json").exists():
            continue
        result = read_json(path.parent / "result.json")
        if result["state"] == "complete" and result["best"] is not None:
            arms = runs.setdefault(labels["dataset"], {})
            arms.setdefault(labels["arm"], []).append((result["best"], folder))
            records[folder] = (record, result)
    found = []
    for dataset, arms in sorted(runs.items()):
        arm = max(sorted(arms), key=lambda a: fmean(best for best, _ in arms[a]))
        ranked = sorted(arms[arm])
        folder = ranked[(len(ranked) - 1) // 2][1]  # of an even number, the lower one of the two in the middle
        tests = [records[f][1]["test"] for _, f in ranked]
        means = {k: fmean(t[k] for t in tests if k in t) for k in sorted(set().union(*tests))}
        found.append(Champion(dataset, arm, folder, *records[folder], tuple(b for b, _ in ranked), means))
    return found


def register(tracker: Tracker, packed: Mapping[str, Path | str]) -> dict[str, str]:
    """Register every dataset's champion as ``<study>-<dataset>`` with the alias ``champion``.

    A run that is a version already only gets the alias.

    Args:
        tracker: of the study; it is brought up to date first.
        packed: the folder of each packed dataset, by name.

    Returns:
        Dataset -> model URI, such as ``models:/study-oai@champion``.

    Raises:
        TrackingAway: MLflow does not answer.
    """
    tracker.sync()
    out = {}
    for champion in champions(tracker.folder):
        with tracker.opened() as store:
            study = champion.record["labels"]["study"]
            name = f"{study}-{champion.dataset}".replace("/", "-")
            run = tracker.run_of(champion.folder)
            known = {v.run_id: v for v in _versions(store, name)}
            version = known.get(run)
            if version is None:
                dataset = PackedDataset.open(packed[champion.dataset])
                dataset.require(champion.record["run"]["data"])
                version = _register(store, tracker, name, run, champion, dataset)
            store.client.set_registered_model_alias(name, ALIAS, version.version)
            out[champion.dataset] = f"models:/{name}@{ALIAS}"
    return out


def _versions(store: Store, name: str) -> list[ModelVersion]:
    if not store.client.search_registered_models(f"name = '{name}'"):
        store.client.create_registered_model(name)
    return list(store.client.search_model_versions(f"name = '{name}'"))


def _register(
    store: Store, tracker: Tracker, name: str, run: str, champion: Champion, dataset: PackedDataset
) -> ModelVersion:
    labels = champion.record["labels"]
    model = store.client.create_logged_model(tracker.experiment, name=name, source_run_id=run)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "model"
        save(folder, tracker.folder / champion.folder, champion.record, dataset, model.model_id)
        store.client.log_model_artifacts(model.model_id, str(folder))
    store.client.finalize_logged_model(model.model_id, "READY")
    tags = {k: str(labels[k]).lower() for k in ("dataset", "arm", "margin_policy", "phantom")}
    return store.client.create_model_version(
        name,
        source=model.artifact_location,  # models:/<id> would be looked up in mlflow's global default store
        run_id=run,
        model_id=model.model_id,
        tags={**tags, "marginlab.run_id": champion.record["id"]},
        description=card(champion, dataset, name),
    )


def save(folder: Path, run_folder: Path, record: dict[str, Any], dataset: PackedDataset, model_id: str | None) -> None:
    """Write the MLflow model: its code (embedder.py), ``model.safetensors`` and ``config.json``."""
    import mlflow
    import numpy as np
    from mlflow.models import Model, ModelSignature
    from mlflow.types import Schema, TensorSpec

    training = record["run"]["training"]
    config = {
        "training": training,
        "channels": dataset.channels,
        "mean": list(dataset.mean),
        "std": list(dataset.std),
        "size": dataset.size,
        "dataset": record["run"]["dataset"],
        "data": dataset.fingerprint,
        "run": record["id"],
    }
    shape = (-1, dataset.channels, dataset.size, dataset.size)
    signature = ModelSignature(
        Schema([TensorSpec(np.dtype(np.uint8), shape)]), Schema([TensorSpec(np.dtype(np.float32), (-1, -1))])
    )
    with tempfile.TemporaryDirectory() as temporary, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*input example")  # the signature is given
        weights, settings = Path(temporary) / "model.safetensors", Path(temporary) / "config.json"
        shutil.copyfile(run_folder / "best.safetensors", weights)
        settings.write_text(json.dumps(config, indent=1))
        mlflow.pyfunc.save_model(
            str(folder),
            python_model=str(Path(__file__).with_name("embedder.py")),
            artifacts={"weights": str(weights), "config": str(settings)},
            code_paths=_own_code(Path(temporary), training["network"]["type"], training["augment"]["type"]),
            signature=signature,
            mlflow_model=Model(model_id=model_id),
            pip_requirements=[f"marginlab=={marginlab.__version__}", *_requirements()],
        )


def _requirements() -> list[str]:
    from importlib.metadata import version

    return [f"{name}=={version(name).partition('+')[0]}" for name in ("mlflow", "numpy", "safetensors", "torch")]


def _own_code(place: Path, *types: str) -> list[str] | None:
    """Files that define a study's own network, copied under the name they are imported by; marginlab's are in marginlab."""
    copies = []
    for module in sorted({t.partition(":")[0] for t in types if not t.startswith("marginlab.")}):
        source = getattr(sys.modules.get(module), "__file__", None)
        if source and "." not in module:
            copies.append(shutil.copyfile(source, str(place / f"{module}.py")))
    return copies or None


def card(champion: Champion, dataset: PackedDataset, name: str) -> str:
    """The model card, in Markdown."""
    labels, run, result = champion.record["labels"], champion.record["run"], champion.result
    n, mean = len(champion.arm_best), fmean(champion.arm_best)
    phantom = bool(labels["phantom"])
    rows = [f"| {k} | {v:.4f} | {champion.arm_test[k]:.4f} |" for k, v in sorted(result["test"].items())]
    blocks = [
        f"# {labels['arm']} on {champion.dataset}",
        "> **Measured on phantoms.** This network has seen synthetic images alone and says nothing about patients."
        if phantom
        else "> Trained on images of people: its embeddings are biometric templates. Keep them as you keep the images.",
        f"Embeds prepared images ({dataset.size} x {dataset.size} pixels, {dataset.channels} channel(s), uint8) so that "
        "images of one subject have a high cosine similarity.",
        "## How it was chosen",
        f"Of the arms of the study `{labels['study']}`, `{labels['arm']}` has the best mean validation mAP in confirmation: "
        f"{mean:.4f} over {n} run(s). This is the run with the median: {result['best']:.4f} (seed {run['seed']}, fold "
        f"{run['fold']}, epoch {result['best_epoch']}). The test split chose nothing.",
        "## Figures",
        "\n".join(["| test figure | this model | mean of the arm |", "|---|---|---|", *rows]),
        "## Data",
        f"`{champion.dataset}`{f', {dataset.phantom}' if phantom else ''}: {dataset.info['images']} images, split by "
        f"subject; fingerprint `{run['data']}`.",
        "## Intended use",
        "Research on metric learning and on how medical images of one person change over time. Not for diagnosis, and not "
        "for recognising people: matching images to persons against their will is an attack on their privacy.",
        "## Limits",
        "The figures hold for images of the same source, prepared the same way. This is the network of one fold; other "
        "scanners, views, ages and longer spans of time were not measured.",
        "## Loading",
        f"```python\nmodel = mlflow.pyfunc.load_model('models:/{name}@{ALIAS}')\nmodel.predict(images)  # uint8 [n, "
        f"{dataset.channels}, {dataset.size}, {dataset.size}] -> float32 [n, D]\n```",
    ]
    return "\n\n".join(blocks)
