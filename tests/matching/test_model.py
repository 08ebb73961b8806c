"""A model is opened without running what lies in its folder."""

from __future__ import annotations

import json
import sys

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import save_file

from marginlab.matching.model import Embedder, describe, opened, rates_of
from marginlab.networks import MirrorAttention, ResNet18, SmallNetwork
from marginlab.networks.weights import files_of, unweighted
from marginlab.runs import read_embeddings
from marginlab.values import InputError, from_json, to_json


def test_a_model_and_its_run_embed_alike_and_as_recorded(made):
    model, run = Embedder.open(made.model), Embedder.of_run(made.run, made.dataset)
    assert model.id == run.id and model.config == run.config and model.lacks() == []
    recorded = pl.read_parquet(made.run / "embeddings" / "validation.parquet")
    images = np.array(made.dataset.pixels)[recorded["row"].to_numpy()]
    found = model(images)
    assert found.dtype == np.float32 and np.array_equal(found, run(images))
    np.testing.assert_allclose(found, read_embeddings(recorded).numpy(), atol=1e-6)


def test_rates_are_counted_by_person_on_validation(made):
    rates = rates_of(made.run, made.dataset)
    fold = made.dataset.manifest.filter(pl.col("fold") == 0)
    per_person = fold.group_by("subject").len()["len"].to_numpy()
    assert rates is not None and rates.impostor.subjects == len(per_person)
    assert rates.impostor.pairs == (len(fold) ** 2 - (per_person**2).sum()) // 2
    visits = fold.group_by("subject", "months").len()["len"].to_numpy()
    assert rates.genuine.pairs == ((per_person**2).sum() - (visits**2).sum()) // 2


def test_the_three_ways_to_name_a_model(made, tmp_path):
    for name in (made.model, made.run, made.model / "artifacts"):
        with opened(str(name), made.workspace) as model:
            assert model.config["run"] == json.loads((made.run / "run.json").read_text())["id"]
    for name, says in (
        ("nowhere", "There is no model 'nowhere'"),
        ("models:/mine-oai@champion", "has no mlflow.db"),
        (str(tmp_path), "has no artifacts/config.json: it is no champion of MarginLab"),
    ):
        with pytest.raises(InputError, match=says), opened(name, tmp_path):
            pass


def test_a_model_of_an_earlier_time_opens_and_says_what_it_lacks(made, tmp_path):
    gone = {"crop": ..., "mirrored": ..., "phantom": ..., "rates": ...}
    model = Embedder.open(made.copy(tmp_path / "old", **gone))
    assert model.rates is None and model.phantom is None
    images = np.array(made.dataset.pixels[:3])
    assert np.array_equal(model(images), Embedder.open(made.model)(images))
    assert len(model.lacks()) == 3 and all("marginlab run STUDY.py" in s for s in (model.lacks()[0], model.lacks()[2]))


def test_cut_borders_make_another_model_and_whole_images_the_one_of_before(made, tmp_path):
    model = Embedder.open(made.model)
    assert model.config["trim"] is False
    assert Embedder.open(made.copy(tmp_path / "old", trim=...)).id == model.id
    assert Embedder.open(made.copy(tmp_path / "eyes", trim=True)).id != model.id


NETWORK = """
from pathlib import Path
from torch import nn
from marginlab.values import value
Path(__file__).with_name("ran").touch()

@value
class Means:
    def build(self, channels):
        return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
"""


@pytest.mark.parametrize("inside", [False, True])
def test_code_of_a_study_runs_only_when_it_is_trusted(made, tmp_path, inside):
    name = f"marginlab_study_trust_{inside}"
    own = {"type": f"{name}:Means", "type_source": "0"}
    training = dict(Embedder.open(made.model).config["training"])
    folder = made.copy(
        tmp_path / "m",
        training={
            **training,
            "network": {"type": "marginlab.networks.pooling:GemPooling", "backbone": own} if inside else own,
        },
    )
    save_file({}, folder / "artifacts" / "model.safetensors")
    (folder / "code").mkdir()
    (folder / "code" / f"{name}.py").write_text(NETWORK)
    with pytest.raises(InputError, match="--trust-code"):
        Embedder.open(folder)
    assert not (folder / "code" / "ran").exists() and str(folder / "code") not in sys.path
    if not inside:
        images = np.array(made.dataset.pixels[:2])
        found = Embedder.open(folder, trust_code=True)(images)
        assert found.shape == (2, 1) and (folder / "code" / "ran").exists()
        sys.path.remove(str(folder / "code"))


def test_a_folder_of_pickles_is_not_opened(made, tmp_path):
    folder = made.copy(tmp_path / "m")
    weights = folder / "artifacts" / "model.safetensors"
    torch.save({}, weights)
    with pytest.raises(InputError, match="damaged"):
        Embedder.open(folder)
    weights.unlink()
    torch.save({}, weights.with_suffix(".pt"))
    with pytest.raises(InputError, match="has no artifacts/model.safetensors"):
        Embedder.open(folder)


def test_weights_of_another_network_are_refused(made, tmp_path):
    folder = made.copy(tmp_path / "m")
    save_file({"x": torch.zeros(1)}, folder / "artifacts" / "model.safetensors")
    with pytest.raises(InputError, match="not those of the network in config.json"):
        Embedder.open(folder)


def test_the_published_weights_that_training_began_with_need_not_be_here():
    begun = MirrorAttention(ResNet18(weights="/not/here.pth", sha256="0" * 64))
    assert unweighted(from_json(to_json(begun))) == MirrorAttention(ResNet18())
    assert unweighted(SmallNetwork()) == SmallNetwork()
    assert files_of((begun, SmallNetwork(), begun)) == {begun.backbone.weights}


def test_other_data_than_the_runs_is_refused(made):
    record = json.loads((made.run / "run.json").read_text())
    assert describe(record, made.run.parent, made.dataset)["rates"] is None  # no embeddings there
    with pytest.raises(InputError, match="no packed dataset|There is no|prepare"), opened(str(made.run), made.run):
        pass
