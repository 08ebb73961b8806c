"""A small packed dataset of knees, a run folder with a network for it, and the model as it is saved for MLflow's registry."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from marginlab.augment import Augment
from marginlab.data.oai import OAI
from marginlab.data.packed import PackedDataset
from marginlab.data.phantom import OaiPhantom, write
from marginlab.data.store import prepare
from marginlab.files import write_json
from marginlab.matching.model import describe
from marginlab.networks import SmallNetwork, build_seeded
from marginlab.runs import write_embeddings
from marginlab.training import Run, Training, embed
from marginlab.values import to_json

SIZE = 36


@dataclass(frozen=True)
class Made:
    raw: Path  # as the provider delivers it
    workspace: Path
    dataset: PackedDataset
    run: Path  # a run's folder
    model: Path  # the same network as a model's folder

    def copy(self, to: Path, **config: object) -> Path:
        """The model's folder with other settings; ``...`` takes one away."""
        import shutil

        shutil.copytree(self.model, to)
        path = to / "artifacts" / "config.json"
        merged = {**json.loads(path.read_text()), **config}
        path.write_text(json.dumps({k: v for k, v in merged.items() if v is not ...}))
        return to


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    root = tmp_path_factory.mktemp("matching")
    raw, workspace = root / "raw", root / "workspace"
    write(OaiPhantom(subjects=25, size=SIZE + 4), raw)
    dataset = prepare(
        OAI(), raw, workspace / "data" / "oai-x", name="oai", size=SIZE, crop=SIZE + 2, private=root / "p"
    )
    training = Training(network=SmallNetwork(width=16, dim=16), augment=Augment(crop=32))
    run = Run("oai", dataset.fingerprint, training, 0, 1)
    network = build_seeded(training.network, 1, 1)
    folder = workspace / "studies" / "mine" / "runs" / "one"
    folder.mkdir(parents=True)
    record = {"id": run.id, "run": to_json(run), "labels": {}}
    write_json(folder / "run.json", record)
    save_file(network.state_dict(), folder / "best.safetensors")
    validation = dataset.fold(0).validation
    x = embed(network, validation, training, dataset.mean, dataset.std, torch.device("cpu"))
    write_embeddings(folder / "embeddings" / "validation.parquet", x, validation)
    artifacts = root / "model" / "artifacts"
    artifacts.mkdir(parents=True)
    save_file(network.state_dict(), artifacts / "model.safetensors")
    (artifacts / "config.json").write_text(json.dumps(describe(record, folder, dataset)))
    return Made(raw, workspace, dataset, folder, root / "model")


@pytest.fixture
def pictures(made: Made) -> list[Path]:
    """The raw images in the order of the dataset's rows."""
    return sorted((made.raw / "ResizedImages").iterdir())


def pixels(dataset: PackedDataset) -> np.ndarray:
    return np.array(dataset.pixels)
