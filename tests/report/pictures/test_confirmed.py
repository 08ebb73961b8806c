from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from marginlab.report.pictures.confirmed import Confirmed, Model
from marginlab.stored import Stored
from marginlab.values import InputError
from tests.report.pictures.made import model, small_study, write_study
from tests.report.synthetic import edit_json


def test_ranks_and_similarities_are_those_of_the_angles():
    m = model()
    assert m.ranking.first().tolist() == [1, 2, 1]
    assert m.ranking.right.tolist() == [0, 1, 2] and m.ranking.wrong.tolist() == [1, 0, 1]
    assert m.sim(1, 0) == pytest.approx(np.cos(np.deg2rad(15)))
    assert m.sim(1, 1) == pytest.approx(np.cos(np.deg2rad(25)))


def test_the_folds_of_a_seed_are_one_ensemble_as_the_stored_one(tmp_path):
    results = write_study(tmp_path, small_study(seeds=2, folds=2))
    confirmed = Confirmed.of(results, "oai")
    assert [(s.arm, s.replicate, s.seed_index, len(s.paths)) for s in confirmed.seeds] == [
        ("one", 0, 0, 2),
        ("one", 0, 1, 2),
        ("two", 0, 0, 2),
        ("two", 0, 1, 2),
    ]
    m = confirmed.first["one"]
    assert m.embeddings.shape == (6, 4)
    assert m.ranking.first().tolist() == Stored.open(*m.seed.paths).ranking().first().tolist() == [1, 2, 1]
    assert confirmed.whose() == "Shown: the 2 fold models, joined, of seed 0."


def test_a_seed_without_a_fold_or_its_embeddings_is_left_out(tmp_path):
    results = write_study(tmp_path, small_study(seeds=2, folds=2))
    before = Confirmed.of(results, "oai")
    before.seeds[0].paths[1].unlink()  # arm one, seed 0
    edit_json(before.seeds[3].paths[0].parents[1] / "result.json", state="failed")  # arm two, seed 1
    after = Confirmed.of(type(results).open(results.folder), "oai")
    assert [(s.arm, s.seed_index) for s in after.seeds] == [("one", 1), ("two", 0)]
    assert after.whose() == "Shown: the 2 fold models, joined, of each arm's first seed that is there."


def test_many_queries_are_thinned_out_evenly(monkeypatch, tmp_path):
    seed = Confirmed.of(write_study(tmp_path, small_study()), "oai").seeds[0]
    monkeypatch.setattr("marginlab.report.pictures.confirmed.MOST_PAIRS", 5)  # of 3 queries x 3 gallery images
    m = Model.load(seed)
    assert m.every == 2 and m.query.tolist() == [1, 5]


def test_folds_of_different_images_are_refused(tmp_path):
    seed = Confirmed.of(write_study(tmp_path, small_study(folds=2)), "oai").seeds[0]
    frame = pl.read_parquet(seed.paths[1])
    frame.reverse().write_parquet(seed.paths[1])
    with pytest.raises(InputError, match="hold different images"):
        Model.load(seed)
    seed.paths[1].write_bytes(b"nothing")
    with pytest.raises(InputError, match="damaged"):
        Model.load(seed)
