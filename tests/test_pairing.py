"""Arms paired per query, from run folders with embeddings; the scores that are kept of them."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from marginlab.compare import answers, exploratory, single_folds
from marginlab.ensembles import FOLDER
from marginlab.pairing import Grid, pair, singles
from marginlab.results import PER_QUERY, Results
from marginlab.scores import ensemble_scores
from marginlab.study import Comparison, Confirmation, Dataset, Search
from tests.report.synthetic import Synthetic, edit_json, study, write_test_embeddings

SUBJECTS, SIDES, VISITS = 12, 2, 3
METRIC = ("test/map", None)


def write(folder: Path, replicates: int = 2, primary: str = "test/map") -> Results:
    """Two replicates, three seeds, two folds; subjects with two knees each, seen at 0, 12 and 24 months."""
    question = study(
        datasets=[Dataset("oai", root="/raw/oai")],
        search=Search(epochs_budget=12, max_epochs=4, replicates=replicates),
        confirmation=Confirmation(seeds=3, folds=2),
        comparison=Comparison(primary=primary, contrast=("automargin", "fixed")),
    )
    made = Synthetic(folder, question)
    made.whole()
    label = np.repeat(np.arange(SUBJECTS * SIDES), VISITS)
    months = np.tile(np.arange(VISITS) * 12.0, SUBJECTS * SIDES)
    for k, row in enumerate(Results.open(folder).runs().filter(kind="confirmation").iter_rows(named=True)):
        rng = np.random.default_rng(k)
        centre = np.random.default_rng(99).normal(size=(SUBJECTS * SIDES, 6))[label]
        noise = {"automargin": 0.6, "fixed": 0.7, "triplet": 1.2}[row["arm"]]
        path = folder / row["folder"]
        write_test_embeddings(
            path, np.arange(len(label)), label, months, centre + noise * rng.normal(size=centre.shape)
        )
        frame = pl.read_parquet(path / "embeddings" / "test.parquet")
        frame.insert_column(2, (frame["label"] // SIDES).alias("subject")).write_parquet(
            path / "embeddings" / "test.parquet"
        )
    return Results.open(folder)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return write(tmp_path_factory.mktemp("written"))


@pytest.mark.parametrize(
    ("pairs", "replicates", "seeds", "left_out"),
    [
        ([(0, 0), (0, 1), (0, 2)], (0,), (0, 1, 2), 0),
        ([(r, s) for r in range(3) for s in range(4)], (0, 1, 2), (0, 1, 2, 3), 0),
        ([(0, 0), (0, 1), (1, 0), (1, 1), (1, 2)], (0, 1), (0, 1), 1),
        ([(0, 0), (0, 1), (0, 2), (0, 3), (1, 0)], (0,), (0, 1, 2, 3), 1),
        ([(0, 0), (1, 0), (2, 0), (1, 1)], (1,), (0, 1), 2),  # two seeds before more cells: one seed gives no interval
        ([(0, 0), (1, 0)], (0, 1), (0,), 0),
        ([], (), (), 0),
    ],
)
def test_the_grid_is_the_largest_that_is_whole(pairs, replicates, seeds, left_out):
    assert Grid.of(pairs) == Grid(replicates, seeds, left_out)


def test_every_query_of_every_seed_is_a_row(written):
    queries = written.queries()
    assert dict(queries.schema) == PER_QUERY
    per_seed = SUBJECTS * SIDES * (VISITS - 1)
    assert len(queries) == 3 * 2 * 3 * per_seed  # arms, replicates, seeds
    assert queries["subject"].n_unique() == SUBJECTS and queries["label"].n_unique() == SUBJECTS * SIDES
    one = queries.filter(arm="fixed", replicate=1, seed_index=2)
    runs = written.runs().filter(kind="confirmation", arm="fixed", replicate=1, seed_index=2)
    frames = [pl.read_parquet(written.folder / f / "embeddings" / "test.parquet") for f in runs["folder"]]
    expected = ensemble_scores(frames)
    assert one["map"].mean() == pytest.approx(expected["map"])
    assert one.filter(months=24)["cmc_1"].mean() == pytest.approx(expected["cmc_1_24m"])
    figures = written.test().filter(arm="fixed", replicate=1, seed_index=2, metric="test/cmc_1", horizon=24)
    assert figures["value"].to_list() == [expected["cmc_1_24m"]]


def test_differences_are_paired_by_query_and_averaged_they_are_those_of_the_figures(written):
    for metric, horizon in (METRIC, ("test/cmc_1", 12)):
        p = pair(written, "oai", "automargin", "fixed", metric, horizon)
        assert p.d.shape == (2, 3, SUBJECTS * SIDES * (1 if horizon else 2)) and len(np.unique(p.subject)) == SUBJECTS
        figures = written.test().filter(pl.col("metric") == metric, pl.col("horizon").eq_missing(horizon))
        for r in range(2):
            for s in range(3):
                a, b = (figures.filter(arm=x, replicate=r, seed_index=s)["value"][0] for x in ("automargin", "fixed"))
                assert p.d[r, s].mean() == pytest.approx(a - b)
    assert pair(written, "oai", "fixed", "automargin", *METRIC).d == pytest.approx(
        -pair(written, "oai", "automargin", "fixed", *METRIC).d
    )


def test_the_answer_says_what_its_interval_covers(written):
    (a,) = answers(written)
    d = a.difference
    assert (d.n, d.replicates, d.subjects, d.queries, d.left_out) == (3, 2, SUBJECTS, SUBJECTS * SIDES * 2, 0)
    assert d.covers == ("subjects", "seeds", "searches") and not a.conditional_on_searches
    assert d.low < d.mean < d.high and a.holm == d.p and a.check.n == 6
    assert answers(Results.open(written.folder)) == [a]  # the draws are the same again


def test_without_embeddings_seeds_and_searches_are_all_that_varies(tmp_path):
    results = write(tmp_path)
    (whole,) = answers(results)
    kept = results.test()
    for path in tmp_path.glob("runs/**/test.parquet"):
        path.unlink()
    (again,) = answers(Results.open(tmp_path))
    assert again == whole  # from the scores that are kept
    shutil.rmtree(tmp_path / FOLDER)
    assert Results.open(tmp_path).test().is_empty()
    bare = Results.open(tmp_path)
    bare._tests["confirmation"] = kept
    (figures,) = answers(bare)
    assert figures.difference.mean == pytest.approx(whole.difference.mean)
    assert figures.difference.covers == ("seeds", "searches") and figures.difference.subjects == 0


def test_kept_scores_are_read_and_those_that_no_longer_fit_are_not(tmp_path):
    results = write(tmp_path, replicates=1)
    before = results.test()
    files = sorted((tmp_path / FOLDER).iterdir())
    assert len(files) == 9  # arms x seeds
    frame = pl.read_parquet(files[0])
    frame.with_columns(map=pl.lit(0.5)).write_parquet(files[0])
    assert Results.open(tmp_path).test().filter(metric="test/map", value=0.5)["value"].len() >= 1
    files[0].write_bytes(b"PAR1 damaged")
    assert Results.open(tmp_path).test().equals(before)
    run = next(tmp_path.glob("runs/**/confirmation-00-f0*/result.json"))
    edit_json(run, time=1.0)  # it was trained again
    assert Results.open(tmp_path).test().equals(before)
    assert len(list((tmp_path / FOLDER).iterdir())) == 10


def test_exploratory_cells_and_single_models(written):
    cells = exploratory(written)
    assert len(cells) == 4 * 3 * 2 and set(cells["reference"]) == {"fixed"} and set(cells["n"]) == {3}
    one = cells.filter(pl.col("metric") == "test/map", pl.col("horizon").is_null(), pl.col("arm") == "automargin")
    (a,) = answers(written)
    assert one["mean"][0] == pytest.approx(a.difference.mean)
    assert one["low"][0] == pytest.approx(a.difference.low, abs=0.1 * (a.difference.high - a.difference.low))
    assert set(single_folds(written)["n"]) == {2 * 3 * 2}
    # The synthetic single models' figures are those of result.json: 0.010, 0.015, 0.020 on both folds.
    assert singles(written, "oai", "automargin", "fixed", *METRIC) == pytest.approx(np.repeat([0.01, 0.015, 0.02], 2))


def test_an_endpoint_at_a_horizon_takes_its_queries_alone(tmp_path):
    (a,) = answers(write(tmp_path, replicates=1, primary="test/cmc_1_12m"))
    assert (a.metric, a.horizon, a.difference.queries) == ("test/cmc_1", 12, SUBJECTS * SIDES)
    assert a.conditional_on_searches and a.difference.covers == ("subjects", "seeds")
