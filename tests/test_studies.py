"""Every arm of every study in studies/ trains: two small batches through the real loop."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from marginlab.augment import Augment
from marginlab.declaration import load_study
from marginlab.networks import DenseNet121, ResNet18
from marginlab.published import published
from marginlab.study import Arm, Study
from marginlab.training import Training, probe
from marginlab.values import to_json

STUDIES = sorted((Path(__file__).parents[1] / "studies").glob("*.py"))
WHOLE = {path.stem: load_study(str(path)) for path in STUDIES}
PHANTOM = {path.stem: load_study(f"{path}:phantom") for path in STUDIES}
ARMS = [pytest.param(arm, id=f"{name}:{arm.name}") for name, study in PHANTOM.items() for arm in study.arms]
REAL = [study for study in WHOLE.values() if study.datasets[0].root and study.name != "fundus"]
ARMS.append(pytest.param(REAL[0].arms[0], id="published"))


@pytest.mark.parametrize("path", STUDIES, ids=lambda p: p.stem)
def test_a_study_is_short_and_says_what_it_asks(path: Path) -> None:
    text = path.read_text()
    assert (text.startswith('"""') and "?" in text.split('"""')[1]) or path.stem == "own_loss"
    assert len(text.splitlines()) <= (62 if path.stem == "demo" or path.stem.startswith("adatriplet") else 59)


@pytest.mark.parametrize("name", PHANTOM)
def test_a_phantom_study_asks_the_same_of_phantoms(name: str) -> None:
    whole, small = WHOLE[name], PHANTOM[name]
    assert all(d.phantom is not None or d.curves is not None for d in small.datasets)
    assert (whole.question, whole.comparison) == (small.question, small.comparison)
    for one, other in zip(whole.arms, small.arms, strict=True):
        assert (one.name, one.space, one.start) == (other.name, other.space, other.start)
        assert to_json(one.training.loss) == to_json(other.training.loss)
        assert to_json(one.training.margin) == to_json(other.training.margin)
    assert whole.name != small.name or to_json(whole) == to_json(small)  # one name stands for one study


@pytest.mark.parametrize("study", REAL, ids=lambda s: s.name)
def test_studies_of_real_images_train_as_published(study: Study) -> None:
    """As in the released config.yml: batches of 32 x 4, Adam 1e-4 with weight decay 1e-4, 280 to 256 pixels, 100 epochs."""
    assert {(d.name, d.size, d.label) for d in study.datasets} <= {("oai", 280, "subject"), ("cxr14", 280, "subject")}
    assert (study.confirmation.seeds, study.confirmation.folds, study.confirmation.epochs) == (5, 5, 100)
    for t in (arm.training for arm in study.arms):
        assert (t.batch_size, t.per_identity, t.lr, t.weight_decay) == (128, 4, 1e-4, 1e-4)
        assert t.augment == Augment() and t.augment.crop == 256
        assert isinstance(t.network, ResNet18) and t.network.dim == 128 and t.network.weights is not None


def test_fundus_trains_as_the_authors_of_mirror_attention_did() -> None:
    """As in commit 0bcd8dc of FundusDR: 256 pixels from 0 to 1, nothing augmented, shuffled batches of 128, Adam 1e-3, 50 epochs."""
    study = WHOLE["fundus"]
    assert [(d.name, d.size, d.label) for d in study.datasets] == [("eyepacs", 256, "grade")]
    assert (study.confirmation.epochs, study.comparison.primary) == (50, "test/mhr_at_10")
    for t in (arm.training for arm in study.arms):
        assert (t.batch_size, t.per_identity, t.lr, t.weight_decay) == (128, None, 1e-3, 1e-5)
        assert (t.augment.crop, t.augment.probability) == (256, 0) and isinstance(t.network.backbone, DenseNet121)


def test_the_published_tables_have_their_rows() -> None:
    for name, letters in (("adatriplet_oai", "oai"), ("adatriplet_cxr14", "cxr14")):
        rows = published(WHOLE[name].datasets[0])
        assert rows is not None and [d.name for d in WHOLE[name].datasets] == [letters]
        theirs = {"SoftTriplet": "softtriple"} | {
            n: n.lower() for n in ("ArcFace", "Triplet", "Contrastive", "WAT", "SCT")
        }
        arms = [*theirs.values(), "adatriplet", "adatriplet/automargin"]
        assert {*theirs, "AdaTriplet"} == set(rows["name"]) and {a.name for a in WHOLE[name].arms} == set(arms)


def test_the_grid_is_tried_whole_and_once() -> None:
    for study in (WHOLE["k_grid"], PHANTOM["k_grid"]):
        starts = study.arms[0].starts()
        cells = {(s["margin.k_delta"], s["margin.k_an"]) for s in starts}
        assert len(starts) == len(cells) == 16 and starts[0] == {"margin.k_delta": 2.0, "margin.k_an": 2.0}
        assert study.search.epochs_budget == 16 * study.search.trial_epochs
        assert study.search.pruner_startup_trials >= 16


@pytest.mark.parametrize("arm", ARMS)
def test_every_arm_trains(arm: Arm) -> None:
    training = dataclasses.replace(arm.training, batch_size=16)
    measured = probe(_small(training), 1, 70, images=16)
    assert measured.batch_s > 0
    for params in arm.starts():
        arm.configured(params, 4)


def _small(training: Training) -> Training:
    """The published network begins from weights that are not here, and takes seconds at its size."""
    if not isinstance(training.network, ResNet18):
        return training
    network = dataclasses.replace(training.network, weights=None, sha256=None)
    return dataclasses.replace(training, network=network, augment=Augment(crop=64))
