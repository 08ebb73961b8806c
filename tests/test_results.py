from __future__ import annotations

import json

import numpy as np
import optuna
import polars as pl
import pytest

from marginlab.results import LABELS, RUNS, TEST, Results
from marginlab.runs import RunFolder
from marginlab.values import InputError, to_json
from tests.report.synthetic import TEST as EXPECTED
from tests.report.synthetic import Synthetic, edit_json, params_of, study, write_test_embeddings


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return Results.open(Synthetic(tmp_path_factory.mktemp("whole")).whole())


def confirmation_folder(results: Results, dataset: str, arm: str, seed: int):
    rows = results.runs().filter(kind="confirmation", dataset=dataset, arm=arm, seed_index=seed)
    return results.folder / rows["folder"][0]


def test_every_run_is_a_row(whole):
    runs = whole.runs()
    assert dict(runs.schema) == RUNS
    assert len(runs) == 6 * (3 + 3)  # searches x (trials + seeds)
    assert runs["state"].value_counts().sort("state").rows() == [("complete", 30), ("pruned", 6)]
    assert runs["current"].all() and runs["id"].n_unique() == 36
    pruned = runs.filter(state="pruned", dataset="oai", arm="fixed").row(0, named=True)
    assert (pruned["trial"], pruned["epochs"], pruned["seconds"], pruned["seed_index"]) == (2, 2, 3 * 4.0, None)
    assert json.loads(pruned["params"]) == {"margin.epsilon": 0.75}
    assert set(runs.filter(dataset="knees")["phantom"]) == {True} and set(runs.filter(dataset="oai")["phantom"]) == {
        False
    }


def test_every_epoch_is_a_row(whole):
    epochs = whole.epochs()
    assert len(epochs) == 6 * (5 + 5 + 3 + 3 * 5)
    assert epochs.columns[: len(LABELS) + 2] == [*LABELS, "epoch", "time"]
    one = epochs.filter(kind="confirmation", dataset="oai", arm="automargin", seed_index=1)
    assert one["val/map"].to_list() == pytest.approx([0.1, 0.1975, 0.295, 0.3925, 0.49])
    assert one["margin/epsilon"].to_list() == pytest.approx([None, 0.25, 0.30, 0.35, 0.40])


def test_the_unit_of_test_figures_is_the_seed(whole):
    test = whole.test()
    assert dict(test.schema) == TEST
    assert len(test) == 6 * 3 * 4 * 3  # searches, seeds, metrics, horizons
    for (dataset, arm), values in EXPECTED.items():
        mine = test.filter(pl.col("horizon").is_null(), dataset=dataset, arm=arm, metric="test/map").sort("seed_index")
        assert mine["value"].to_list() == values
    late = test.filter(horizon=24, dataset="oai", arm="fixed", metric="test/cmc_1", seed_index=0)
    assert late["value"].to_list() == pytest.approx([0.89 - 0.03 - 0.05])


def test_nothing_is_missing_from_a_whole_study_and_phantoms_are_known(whole):
    assert whole.missing() == []
    assert whole.phantom("knees") and not whole.phantom("oai")


def test_a_run_that_says_phantom_makes_its_dataset_one(tmp_path):
    folder = Synthetic(tmp_path).whole()
    run = next(folder.glob("runs/oai/**/run.json"))
    labels = json.loads(run.read_text())["labels"]
    edit_json(run, labels={**labels, "phantom": True})
    assert Results.open(folder).phantom("oai")


def test_folds_answer_as_one_ensemble(tmp_path):
    """Two models that are each right about half of the subjects; together they are right about all."""
    made = Synthetic(tmp_path, study(seeds=2, folds=2))
    made.whole()
    results = Results.open(tmp_path)
    label = np.repeat(np.arange(8), 2)
    months = np.tile([0.0, 12.0], 8)
    gallery = np.eye(8)
    for row in results.runs().filter(kind="confirmation").iter_rows(named=True):
        query = np.roll(gallery, 1, axis=0) * 0.9 + gallery * 0.5  # wrong, but its second guess is right
        query[row["fold"] :: 2] = gallery[row["fold"] :: 2]
        embeddings = np.empty((16, 8))
        embeddings[0::2], embeddings[1::2] = gallery, query
        write_test_embeddings(results.folder / row["folder"], np.arange(16), label, months, embeddings)
    test = Results.open(tmp_path).test()
    assert len(test.filter(metric="test/map")) == 6 * 2 * 2  # searches, seeds, (all, 12 months)
    assert set(test.filter(metric="test/map")["value"]) == {1.0}


def test_a_seed_that_lacks_a_fold_or_its_embeddings_is_listed_and_left_out(tmp_path):
    made = Synthetic(tmp_path, study(seeds=2, folds=2))
    made.whole()
    results = Results.open(tmp_path)
    assert results.test().is_empty()
    assert (
        results.missing()[0]
        == "4 confirmation runs of oai/automargin/r0 have no test embeddings: their seeds cannot be scored."
    )


def test_an_interrupted_study_is_read_as_far_as_it_got(tmp_path):
    results = Results.open(Synthetic(tmp_path).whole())
    (confirmation_folder(results, "oai", "fixed", 1) / "result.json").unlink()
    failed = confirmation_folder(results, "oai", "triplet", 0)
    edit_json(failed / "result.json", state="failed", reason="The loss was nan in epoch 2.")
    edit_json(
        tmp_path / "summary.json",
        searches={**results.searches, "knees/fixed/r0": {**results.searches["knees/fixed/r0"], "epochs": 4}},
    )
    results = Results.open(tmp_path)
    assert results.missing() == [
        "Of the 3 confirmation runs of oai/fixed/r0, 1 have not ended.",
        "A confirmation run of oai/triplet/r0 failed: The loss was nan in epoch 2.",
        "The search knees/fixed/r0 has spent 4 of its 12 epochs.",
    ]
    seeds = {
        arm: set(results.test().filter(dataset="oai", arm=arm)["seed_index"])
        for arm in ("automargin", "fixed", "triplet")
    }
    assert seeds == {"automargin": {0, 1, 2}, "fixed": {0, 2}, "triplet": {1, 2}}
    assert results.runs()["state"].value_counts().sort("state").rows() == [
        ("complete", 28),
        ("failed", 1),
        ("pruned", 6),
        ("unfinished", 1),
    ]


def test_a_study_that_has_only_begun(tmp_path):
    Synthetic(tmp_path)
    results = Results.open(tmp_path)
    assert results.runs().is_empty() and results.epochs().is_empty() and results.test().is_empty()
    assert "The search oai/automargin/r0 has left no record." in results.missing()


def test_without_record_of_the_searches_the_confirmed_parameters_count(tmp_path):
    results = Results.open(Synthetic(tmp_path).whole(summary=False))
    key = results.plan.searches()[0]
    assert results.winner(key) == params_of("automargin", 1)
    assert len(results.test()) == 6 * 3 * 4 * 3
    assert results.missing()[0] == "The search oai/automargin/r0 has left no record."


def test_runs_that_confirmed_an_earlier_winner_do_not_count(tmp_path):
    made = Synthetic(tmp_path)
    made.whole()
    key = made.plan.searches()[0]
    for task in made.plan.confirmations(key, params_of("automargin", 0)):
        made.run(task, 0.2, 4, "complete", {"test/map": 0.0})
    results = Results.open(tmp_path)
    assert len(results.runs()) == 39 and results.runs()["current"].sum() == 36
    assert results.test().filter(dataset="oai", arm="automargin", metric="test/map")["value"].min() > 0.8


def test_runs_beyond_the_declared_seeds_do_not_count(tmp_path):
    Synthetic(tmp_path).whole()
    edit_json(tmp_path / "study.json", study=to_json(study(seeds=2)))
    assert set(Results.open(tmp_path).test()["seed_index"]) == {0, 1}


def test_the_storage_of_the_searches_goes_before_the_summary(tmp_path):
    results = Results.open(Synthetic(tmp_path).whole())
    key = results.plan.searches()[0]
    searched = optuna.create_study(
        study_name=str(key), storage=f"sqlite:///{tmp_path / 'optuna.db'}", direction="maximize"
    )
    space = {"margin.k_delta": optuna.distributions.CategoricalDistribution((1.0, 2.0, 4.0))}
    values = {1: 0.1, 2: 0.2, 3: 0.3, 4: 0.7}
    for k in (2.0, 4.0):
        searched.add_trial(
            optuna.trial.create_trial(
                params={"margin.k_delta": k}, distributions=space, value=k / 10, intermediate_values=values
            )
        )
    results = Results.open(tmp_path)
    assert results.searches[str(key)]["trials"] == 2 and results.searches[str(key)]["best"] == 0.4
    assert results.winner(key) == {"margin.k_delta": 4.0}
    assert results.searches["oai/fixed/r0"]["trials"] == 3  # the summary's: the storage has no such search
    assert "The search oai/automargin/r0 has spent 8 of its 12 epochs." in results.missing()


def test_a_search_without_a_complete_trial_has_no_winner(tmp_path):
    made = Synthetic(tmp_path)
    key = made.plan.searches()[0]
    made.trials(key)
    made.summary(searches={str(key): {"trials": 1, "epochs": 12, "budget": 12, "params": None, "best": None}})
    results = Results.open(tmp_path)
    assert results.winner(key) is None
    assert results.missing()[0] == f"The search {key} has no winner: none of its trials was completed."


def test_a_folder_without_a_study_is_refused_in_a_sentence(tmp_path):
    with pytest.raises(InputError, match="No study has begun"):
        Results.open(tmp_path)


def test_run_folders_read_back_as_they_were_planned(whole):
    row = whole.runs().filter(kind="trial").row(0, named=True)
    assert RunFolder.open(whole.folder / row["folder"]).run.id == row["id"]
