"""Images of one grade are to be found, not of one person: from a raw folder to the figures of a run and of an ensemble."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from marginlab.augment import Augment
from marginlab.data.eyepacs import EyePACS
from marginlab.data.packed import PackedDataset
from marginlab.data.phantom import EyePacsPhantom, write
from marginlab.data.store import prepare
from marginlab.ensembles import scored
from marginlab.executing import execute
from marginlab.losses import FineTriplet
from marginlab.margins import NoMargin
from marginlab.networks import MirrorAttention, SmallNetwork
from marginlab.retrieval import AT_K, METRICS
from marginlab.runs import RunFolder
from marginlab.scores import query_means
from marginlab.study import Arm, Comparison, Dataset, Search, Study
from marginlab.training import Run, Training
from marginlab.values import InputError

TRAINING = Training(
    loss=FineTriplet(),
    margin=NoMargin(),
    network=MirrorAttention(SmallNetwork(width=16), dim=16),
    augment=Augment(crop=32, probability=0.0),
    epochs=1,
    batch_size=16,
    per_identity=None,
    lr=1e-3,
)


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> PackedDataset:
    place = tmp_path_factory.mktemp("graded")
    write(EyePacsPhantom(50, size=32), place / "raw")
    how: dict[str, Any] = {"name": "eyepacs", "size": 32, "workers": 1, "private": place / "private"}
    return prepare(EyePACS(), place / "raw", place / "packed", label="grade", **how)


@pytest.fixture(scope="module")
def done(packed: PackedDataset, tmp_path_factory: pytest.TempPathFactory) -> tuple[RunFolder, dict[str, Any]]:
    torch.set_num_threads(1)
    path = tmp_path_factory.mktemp("run") / "run"
    RunFolder.create(path, Run("eyepacs", packed.fingerprint, TRAINING, 0, 1), {"kind": "confirmation"})
    cpu = torch.device("cpu")
    result = execute(path, packed.folder, lambda epoch, row: True, open_test=True, device=cpu)
    assert result is not None
    return RunFolder.open(path), result


def test_the_training_split_is_the_gallery_and_the_test_split_asks(packed: PackedDataset) -> None:
    manifest, test, train = packed.manifest, packed.test(), packed.fold(0).train
    assert manifest["label"].to_list() == [str(g) for g in manifest["grade"]]
    assert set(manifest.filter(split="train")["role"]) == {"gallery"}
    assert set(manifest.filter(split="test")["role"]) == {"query"}
    assert len(test) == len(manifest) and test.graded and train.graded and len(np.unique(train.label)) == 3
    assert test.subject is not None
    assert not set(test.subject[test.gallery]) & set(test.subject[test.query])
    packed.require_queries()
    # A fellow eye of the same grade is no answer; one of another grade is another answer.
    same_visit = train.visit[:, None] == train.visit
    assert train.subject is not None
    np.testing.assert_array_equal(
        same_visit,
        (train.subject[:, None] == train.subject) & (train.label[:, None] == train.label),
    )


def test_the_figures_of_a_run_are_those_worked_out_by_hand(
    packed: PackedDataset, done: tuple[RunFolder, dict[str, Any]]
) -> None:
    folder, result = done
    assert result["state"] == "complete"
    assert {f"test/{name}" for name in (*METRICS, *AT_K)} == set(result["test"])
    frame = folder.embeddings("test")
    assert frame is not None
    x, grade = frame["embedding"].to_numpy(), frame.join(packed.manifest, on="row")["grade"].to_numpy()
    query, gallery = ((frame["role"] == role).to_numpy() for role in ("query", "gallery"))
    near = np.argsort(-(x[query] @ x[gallery].T), axis=1, kind="stable")
    right = grade[gallery][near] == grade[query][:, None]
    right = right[right.any(axis=1)]  # a query without a match is in no mean
    for k in (5, 50):
        precision = np.cumsum(right[:, :k], axis=1) / np.arange(1, k + 1)
        assert result["test"][f"test/mhr_at_{k}"] == pytest.approx(right[:, :k].mean(), abs=1e-6)
        by_k = (precision * right[:, :k]).sum(axis=1) / k  # divided by K, as published
        assert result["test"][f"test/map_at_{k}"] == pytest.approx(by_k.mean(), abs=1e-6)
    assert {f"val/{name}" for name in AT_K} <= folder.epochs()[-1].keys()
    assert not any(re.search(r"_\d+m$", name) for name in folder.epochs()[-1])  # nobody is seen twice: no horizons


def test_an_ensemble_reports_what_its_models_report(done: tuple[RunFolder, dict[str, Any]], tmp_path: Path) -> None:
    folder, result = done
    for _ in range(2):  # worked out, then read from where it was kept
        queries = scored(tmp_path, [(folder, result), (folder, result)])
        assert queries is not None and set(AT_K) <= set(queries.columns)
        alone = {name.removeprefix("test/"): v for name, v in result["test"].items()}
        assert query_means(queries) == pytest.approx(alone, abs=1e-6)
    assert queries is not None
    assert queries["subject"].n_unique() < len(queries)  # intervals draw patients, of whom most have two eyes
    assert isinstance(queries["months"][0], float) and queries["months"].is_nan().all()


def test_batches_that_no_fold_can_fill_are_refused(packed: PackedDataset) -> None:
    packed.require_identities(3, "Arm 'a'")
    with pytest.raises(
        InputError, match=r"Arm 'a': a batch holds 4 identities .* has 3 to train on.* per_identity=None"
    ):
        packed.require_identities(4, "Arm 'a'")


def test_people_need_another_label(packed: PackedDataset, tmp_path: Path) -> None:
    raw = packed.folder.parent / "raw"
    people = prepare(EyePACS(), raw, tmp_path / "p", name="eyepacs", size=32, workers=1, private=tmp_path / "private")
    with pytest.raises(InputError, match="or look for grades with label='grade'"):
        people.require_queries()


def test_lists_of_k_are_judged_where_grades_are_to_be_found() -> None:
    arm, search = Arm("one", TRAINING), Search(2, 1, objective="val/mhr_at_10")
    by_grade = Dataset("eyepacs", root="eyepacs", label="grade")
    study = Study("s", (by_grade,), (arm,), search, comparison=Comparison("test/map_at_5"))
    for field, value in (("search", Search(2, 1)), ("comparison", Comparison())):
        with pytest.raises(InputError, match=r"is measured where grades are to be found \(label='grade'\), not on oai"):
            dataclasses.replace(study, datasets=(by_grade, Dataset("oai", root="oai")), **{field: value})
