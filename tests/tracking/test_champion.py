from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from marginlab import usercode
from marginlab.data.packed import PackedDataset
from marginlab.matching.model import opened
from marginlab.precision import forward
from marginlab.runs import RunFolder
from marginlab.tracking import Tracker, champion, connect
from marginlab.values import InputError, to_json


def confirm(place, figures, dataset="oai"):
    """Confirmation runs with these best validation figures, by arm."""
    fakes = {}
    for arm, values in figures.items():
        for i, value in enumerate(values):
            fakes[arm, i] = place.confirmation(i, arm, dataset).train(3, best=value)
            fakes[arm, i].recorder.finish("complete", metrics={"test/map": value - 0.1})
    return fakes


FIGURES = {"ada/automargin": [0.7, 0.9, 0.75], "ada/fixed": [0.95, 0.6, 0.7]}  # means 0.783 and 0.75


def test_the_best_mean_and_in_it_the_median_win(place):
    fakes = confirm(place, FIGURES)
    trial = place.trial(0, arm="ada/fixed").train(3, best=0.99)  # a search proves nothing
    trial.recorder.finish("complete")
    (found,) = champion.champions(place.study)
    assert (found.dataset, found.arm) == ("oai", "ada/automargin")
    assert found.folder == fakes["ada/automargin", 2].task.folder
    assert found.arm_best == (0.7, 0.75, 0.9)
    assert found.arm_test == {"test/map": pytest.approx((0.6 + 0.8 + 0.65) / 3)}


def test_failed_runs_do_not_count_and_of_two_the_lower_is_the_median(place):
    fakes = confirm(place, {"ada/automargin": [0.9, 0.8]})
    place.confirmation(0, "ada/fixed").train(2, best=0.99).recorder.finish("failed", "no")
    (found,) = champion.champions(place.study)
    assert found.folder == fakes["ada/automargin", 1].task.folder


LOAD = """
import json, sys
import mlflow, numpy as np
assert "ray" not in sys.modules
mlflow.set_tracking_uri(sys.argv[1]); mlflow.set_registry_uri(sys.argv[1])
model = mlflow.pyfunc.load_model(sys.argv[2])
np.save(sys.argv[4], model.predict(np.load(sys.argv[3])))
assert "ray" not in sys.modules
try:
    model.predict(np.load(sys.argv[3]).astype(np.float32))
except mlflow.exceptions.MlflowException:
    sys.exit(0)
sys.exit("floats were taken for pixels")
"""


def test_the_registered_champion_embeds_like_the_network(place, packed, tmp_path):
    fake = confirm(place, FIGURES)["ada/automargin", 2]
    tracker = Tracker(place.workspace, place.study)
    uris = champion.register(tracker, {"oai": packed})
    assert uris == {"oai": "models:/tracked-oai@champion"}
    store = connect(place.workspace)
    version = store.client.get_model_version_by_alias("tracked-oai", "champion")
    assert version.run_id == place.run(fake).info.run_id
    for words in (
        "Measured on phantoms",
        "| test/map | 0.6500 | 0.6833 | 0.6000 to 0.8000 |",
        "| `ada/fixed` | 0.7500 |",
        "6 images of 3 subjects",
        "must not be used for",
        "0.7833 over 3 run(s)",
        "Recognising people",
    ):
        assert words.lower() in version.description.lower()

    assert store.client.get_registered_model("tracked-oai").description == version.description
    outputs = store.client.get_run(version.run_id).outputs.model_outputs
    models = {m.name: m for m in (store.client.get_logged_model(o.model_id) for o in outputs)}
    assert {o.step for o in outputs} == {1} and "tracked-oai" in models
    assert {m.key: m.value for m in models["tracked-oai"].metrics} == {"best/val_map": 0.75, "test/map": 0.65}

    assert champion.register(Tracker(place.workspace, place.study), {"oai": packed}) == uris
    assert len(store.client.search_model_versions("name = 'tracked-oai'")) == 1

    files = [p for p in (place.workspace / "mlruns" / "tracked" / "models").rglob("*") if p.is_file()]
    assert {"model.safetensors", "config.json", "embedder.py"} <= {p.name for p in files}
    assert not [p.name for p in files if p.suffix in (".pkl", ".pickle", ".pt", ".pth")]
    (config,) = [json.loads(p.read_text()) for p in files if p.name == "config.json"]
    assert config["run"] == fake.task.run.id and config["size"] == 16
    assert config["rates"]["impostor"]["subjects"] == 3 and config["phantom"] == "OaiPhantom v1"

    dataset = PackedDataset.open(packed)
    pixels = tmp_path / "pixels.npy"
    np.save(pixels, dataset.pixels)
    env = {**os.environ, "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false", "PYTHONPATH": "platform"}
    env |= {"MLFLOW_DISABLE_TELEMETRY": "true", "OMP_NUM_THREADS": "1"}
    argv = [sys.executable, "-c", LOAD, store.uri, uris["oai"], str(pixels), str(tmp_path / "out.npy")]
    done = subprocess.run(argv, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    training = fake.task.run.training
    network = training.network.build(1).eval()
    network.load_state_dict(RunFolder.open(fake.path).best_weights()[0])
    with torch.no_grad():
        images = training.augment.evaluate(torch.from_numpy(np.array(dataset.pixels)), dataset.mean, dataset.std)
        expected = forward(network, images).numpy()
    found = np.load(tmp_path / "out.npy")
    assert found.dtype == np.float32 and found.shape == (6, 8)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
    (logged,) = (place.workspace / "mlruns" / "tracked" / "models").iterdir()
    for uri in (uris["oai"], "models:/tracked-oai/1", f"models:/{logged.name}"):
        with opened(uri, place.workspace) as model:  # what `marginlab embed` does
            assert np.array_equal(model(np.array(dataset.pixels)), found)
    with (
        pytest.raises(InputError, match="cannot be had from sqlite"),
        opened("models:/other@champion", place.workspace),
    ):
        pass


def test_a_champion_without_rates_is_registered_anew(place, packed):
    confirm(place, {"ada/automargin": [0.7]})
    champion.register(Tracker(place.workspace, place.study), {"oai": packed})
    client = connect(place.workspace).client
    client.delete_model_version_tag("tracked-oai", "1", champion.RATES)  # as of before there were any
    champion.register(Tracker(place.workspace, place.study), {"oai": packed})
    assert client.get_model_version_by_alias("tracked-oai", "champion").version in (2, "2")


def test_a_new_champion_takes_the_alias_and_other_data_is_refused(place, packed):
    fakes = confirm(place, {"ada/automargin": [0.7]})
    champion.register(Tracker(place.workspace, place.study), {"oai": packed})
    fakes |= confirm(place, {"ada/fixed": [0.8]})
    champion.register(Tracker(place.workspace, place.study), {"oai": packed})
    client = connect(place.workspace).client
    assert client.get_model_version_by_alias("tracked-oai", "champion").version in (2, "2")
    best = client.get_model_version_by_alias("tracked-oai", "champion")
    assert best.run_id == place.run(fakes["ada/fixed", 0]).info.run_id
    place.confirmation(1, "ada/fixed").train(3, best=0.81).recorder.finish("complete")
    place.confirmation(2, "ada/fixed").train(3, best=0.805).recorder.finish("complete")
    info = json.loads((packed / "dataset.json").read_text())
    (packed / "dataset.json").write_text(json.dumps({**info, "fingerprint": "e" * 16}))
    with pytest.raises(InputError):
        champion.register(Tracker(place.workspace, place.study), {"oai": packed})


NETWORK = """
from torch import nn
from marginlab.values import value

@value
class Means:
    def build(self, channels):
        return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
"""


def test_a_network_from_a_study_file_travels_with_the_model(place, packed, tmp_path, monkeypatch):
    import mlflow
    from safetensors.torch import save_file

    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "means.py").write_text(NETWORK)
    module = usercode.load(tmp_path / "means.py")
    fake = place.confirmation(0)
    run = fake.task.run
    run = dataclasses.replace(run, training=dataclasses.replace(run.training, network=module.Means()))
    record = {"id": run.id, "run": to_json(run)}
    del sys.modules[module.__name__]  # as in another process, which has never seen the study file
    save_file({}, fake.path / "best.safetensors")
    dataset = PackedDataset.open(packed)
    with pytest.raises(InputError, match=f"No module named '{module.__name__}'.*PYTHONPATH"):
        champion.save(tmp_path / "model", fake.path, record, dataset, None)
    kept = place.study / "code" / f"{module.__name__}.py"
    kept.parent.mkdir()
    (tmp_path / "means.py").rename(kept)
    champion.save(tmp_path / "model", fake.path, record, dataset, None)
    del sys.modules[module.__name__]
    kept.unlink()
    model = mlflow.pyfunc.load_model(str(tmp_path / "model"))
    expected = (np.array(dataset.pixels).mean(axis=(1, 2, 3)) / 255 - 0.4) / 0.2
    np.testing.assert_allclose(model.predict(np.array(dataset.pixels))[:, 0], expected, rtol=1e-4)
