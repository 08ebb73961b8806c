"""A dataset's champion: chosen by validation, registered as a model that anyone can load.

The champion is the arm with the best mean validation figure in confirmation, and of its runs the one with the median.
The test figure chooses nothing; the model card quotes it.
"""

from __future__ import annotations

import importlib
import json
import shutil
import tempfile
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

import polars as pl

import marginlab
from marginlab import usercode
from marginlab.data.packed import PackedDataset
from marginlab.files import read_json
from marginlab.matching.model import describe
from marginlab.results import Results
from marginlab.tracking.card import card
from marginlab.tracking.describe import final_points, flatten, stamp
from marginlab.tracking.links import model_name
from marginlab.tracking.projector import Tracker
from marginlab.tracking.store import Store
from marginlab.values import InputError

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

ALIAS = "champion"
RATES = "marginlab.rates"  # tags versions that know their false-match rates; older ones are registered anew


@dataclass(frozen=True)
class Champion:
    dataset: str
    arm: str
    folder: str  # of the run, relative to the study's
    record: dict[str, Any]  # run.json
    result: dict[str, Any]  # result.json
    arm_best: tuple[float, ...]  # validation figures of the arm's confirmation runs, ascending
    arm_test: dict[str, float]  # mean test figures of the same runs
    arm_range: dict[str, tuple[float, float]]  # the lowest and the highest of them
    arms: dict[str, float]  # mean validation figure of every arm


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
        means = {a: fmean(best for best, _ in runs_of) for a, runs_of in sorted(arms.items())}
        arm = max(means, key=lambda a: means[a])
        ranked = sorted(arms[arm])
        folder = ranked[(len(ranked) - 1) // 2][1]  # of an even number, the lower one of the two in the middle
        tests = [records[f][1]["test"] for _, f in ranked]
        figures = {k: [t[k] for t in tests if k in t] for k in sorted(set().union(*tests))}
        test = {k: fmean(v) for k, v in figures.items()}
        spread = {k: (min(v), max(v)) for k, v in figures.items()}
        found.append(Champion(dataset, arm, folder, *records[folder], tuple(b for b, _ in ranked), test, spread, means))
    return found


def register(tracker: Tracker, packed: Mapping[str, Path | str]) -> dict[str, str]:
    """Register every dataset's champion as ``<study>-<dataset>`` with the alias ``champion``.

    A run that is a version already gets the alias, and a card that knows the runs that were added since.

    Args:
        tracker: of the study; it is brought up to date first.
        packed: the folder of each packed dataset, by name. Champions on others are left as they are.

    Returns:
        Dataset -> model URI, such as ``models:/study-oai@champion``.

    Raises:
        TrackingAway: MLflow does not answer.
    """
    tracker.sync()
    out = {}
    for champion in champions(tracker.folder):
        if champion.dataset not in packed or champion.record["labels"].get("simulated"):  # which have no networks
            continue
        with tracker.opened() as store:
            name = model_name(champion.record["labels"]["study"], champion.dataset)
            run = tracker.run_of(champion.folder)
            known = {v.run_id: v for v in _versions(store, name) if RATES in v.tags}
            dataset = PackedDataset.open(packed[champion.dataset])
            dataset.require(champion.record["run"]["data"])
            text = card(champion, dataset, name, tracker.declared)
            version = known.get(run)
            if version is None:
                version = _register(store, tracker, name, run, champion, dataset, text)
            elif version.description != text:
                store.client.update_model_version(name, version.version, text)
            store.client.update_registered_model(name, text)  # the model's own page shows the champion's card
            store.client.set_registered_model_alias(name, ALIAS, version.version)
            out[champion.dataset] = f"models:/{name}@{ALIAS}"
    return out


def _versions(store: Store, name: str) -> list[ModelVersion]:
    if not store.client.search_registered_models(f"name = '{name}'"):
        store.client.create_registered_model(name)
    return list(store.client.search_model_versions(f"name = '{name}'"))


def _register(
    store: Store, tracker: Tracker, name: str, run: str, champion: Champion, dataset: PackedDataset, text: str
) -> ModelVersion:
    from mlflow.entities import LoggedModelOutput, Metric

    labels = champion.record["labels"]
    params = flatten(champion.record["run"]["training"])
    model = store.client.create_logged_model(tracker.experiment, name, run, {"champion": champion.dataset}, params)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "model"
        save(folder, tracker.folder / champion.folder, champion.record, dataset, model.model_id)
        store.client.log_model_artifacts(model.model_id, str(folder))
    step, at = champion.result["best_epoch"], stamp(champion.result["time"])
    store.client.log_outputs(run, [LoggedModelOutput(model.model_id, step)])
    data = {"dataset_name": champion.dataset, "dataset_digest": dataset.fingerprint[:36]}
    figures = final_points(champion.result).items()  # the run has these points; the model gets them too
    store.client.log_batch(run, [Metric(k, v, at, step, model_id=model.model_id, **data) for k, v in figures])
    store.client.finalize_logged_model(model.model_id, "READY")
    tags = {k: str(labels[k]).lower() for k in ("dataset", "arm", "margin_policy", "phantom")}
    return store.client.create_model_version(
        name,
        source=model.artifact_location,  # models:/<id> would be looked up in mlflow's global default store
        run_id=run,
        model_id=model.model_id,
        tags={**tags, "marginlab.run_id": champion.record["id"], RATES: "counted on validation"},
        description=text,
    )


def save(folder: Path, run_folder: Path, record: dict[str, Any], dataset: PackedDataset, model_id: str | None) -> None:
    """Write the MLflow model: its code (embedder.py), ``model.safetensors`` and ``config.json``."""
    import mlflow
    import numpy as np
    from mlflow.models import Model, ModelSignature
    from mlflow.types import Schema, TensorSpec

    training = record["run"]["training"]
    config = describe(record, run_folder, dataset)
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
            code_paths=_own_code(Path(temporary), run_folder, training["network"]["type"], training["augment"]["type"]),
            signature=signature,
            mlflow_model=Model(model_id=model_id),
            pip_requirements=[f"marginlab=={marginlab.__version__}", *_requirements()],
        )


def _requirements() -> list[str]:
    from importlib.metadata import version

    return [f"{name}=={version(name).partition('+')[0]}" for name in ("mlflow", "numpy", "safetensors", "torch")]


def _own_code(place: Path, run_folder: Path, *types: str) -> list[str] | None:
    """Files that define a study's own network, copied under the name they are imported by; marginlab's are in marginlab."""
    usercode.use(run_folder)
    copies = []
    for module in sorted({t.partition(":")[0] for t in types if not t.startswith("marginlab.")}):
        try:
            source = importlib.import_module(module).__file__
        except ImportError as e:
            raise InputError(
                f"The code of the champion in {run_folder} cannot be read ({e}): put the file of {module!r} where Python finds it "
                "(PYTHONPATH), and `marginlab sync` registers the champion."
            ) from e
        if source and "." not in module:
            copies.append(shutil.copyfile(source, str(place / f"{module}.py")))
    return copies or None
