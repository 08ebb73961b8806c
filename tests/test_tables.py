from __future__ import annotations

import math

import polars as pl
import pytest

from marginlab import tables
from marginlab.results import Results
from marginlab.space import choice, loguniform, uniform
from marginlab.study import Arm, Comparison
from marginlab.training import Training
from tests.report.synthetic import EPOCHS, Synthetic, study


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return Results.open(Synthetic(tmp_path_factory.mktemp("whole")).whole())


def test_the_headline_by_hand(whole):
    frame = tables.headline(whole)
    assert len(frame) == 2 * 3 * 4 * 3  # datasets, arms, metrics, horizons
    all_queries = frame.filter(pl.col("horizon").is_null(), metric="test/map")
    assert all_queries.select("dataset", "arm", "n").rows() == [
        (dataset, arm, 3) for dataset in ("oai", "knees") for arm in ("automargin", "fixed", "triplet")
    ]
    # 0.90, 0.92, 0.94: sd 0.02; 0.89, 0.905, 0.92: sd 0.015; 0.80, 0.81, 0.85: sd sqrt(0.0007)
    assert all_queries["mean"].to_list() == pytest.approx([0.92, 0.905, 0.86, 0.82, 0.81, 0.71])
    assert all_queries["se"].to_list() == pytest.approx(
        [s / 3**0.5 for s in (0.02, 0.015, 0.01, 0.0007**0.5, 0.01, 0.01)]
    )
    late = frame.filter(dataset="oai", arm="fixed", metric="test/map_at_r", horizon=24).row(0, named=True)
    assert (late["mean"], late["se"]) == (pytest.approx(0.905 - 0.1 - 0.05), pytest.approx(0.015 / 3**0.5))


def test_the_headline_is_in_the_order_of_the_study(whole):
    frame = tables.headline(whole)
    assert frame["dataset"].unique(maintain_order=True).to_list() == ["oai", "knees"]
    assert frame["horizon"].unique(maintain_order=True).to_list() == [None, 12, 24]
    assert frame["metric"].unique(maintain_order=True).to_list() == [
        m for m in tables.METRICS if not m.endswith("_at_10")
    ]


def test_one_seed_has_no_standard_error(tmp_path):
    frame = tables.headline(Results.open(Synthetic(tmp_path, study(seeds=1)).whole()))
    assert set(frame["n"]) == {1} and frame["se"].null_count() == len(frame)


def test_learning_curves_are_means_of_confirmation_runs(whole):
    frame = tables.learning_curves(whole)
    mine = frame.filter(dataset="oai", arm="automargin", metric="val/map")
    assert mine["epoch"].to_list() == list(range(EPOCHS + 1)) and set(mine["n"]) == {3}
    assert mine["mean"].to_list() == pytest.approx([0.1 + 0.39 * e / 4 for e in range(5)])  # to 0.49, the mean of three
    assert frame.filter(arm="triplet", metric="margin/beta").is_empty()  # NaN: a policy that does not set it
    assert frame.filter(dataset="oai", arm="automargin", metric="margin/beta")["mean"].to_list() == pytest.approx(
        [0, 0.1, 0.2, 0.3]
    )


def test_searches_by_hand(whole):
    frame = tables.searches(whole)
    assert frame.select("dataset", "arm").rows()[:2] == [("oai", "automargin"), ("oai", "fixed")]
    assert frame.row(0, named=True) == {
        "dataset": "oai",
        "arm": "automargin",
        "replicate": 0,
        "trials": 3,
        "modelled": 1,
        "pruned": 1,
        "failed": 0,
        "epochs": 10,
        "budget": 12,
        "best": 0.51,
        "params": "margin.k_delta = 4",
        "confirmed": pytest.approx(0.49),
        "optimism": pytest.approx(0.02),
    }


def test_parameters_are_read_at_a_glance():
    assert tables.parameters({"margin.k_delta": 2.0, "lr": 0.000123456}) == "lr = 0.0001235, margin.k_delta = 2"
    assert tables.parameters({}) == "nothing searched"
    assert tables.parameters(None) is None


def test_where_time_goes_by_hand(whole):
    """168 epochs of 4 s, none overlapping: 672 s busy of the 800 s of search and confirmation."""
    frame = tables.time_use(whole)
    spent = {(r["part"], r["step"]): (r["seconds"], r["share"]) for r in frame.iter_rows(named=True)}
    assert spent[tables.IN_RUNS, "forward"] == (336.0, 0.5)
    assert spent[tables.IN_RUNS, "data"] == (168.0, 0.25)
    assert (tables.IN_RUNS, "images_per") not in spent
    assert spent[tables.ON_CLOCK, "search"] == (400.0, pytest.approx(400 / 837))
    assert spent[tables.BUSY, "a run was busy"] == (pytest.approx(672.0), pytest.approx(0.84))
    assert spent[tables.BUSY, "no run was busy"] == (pytest.approx(128.0), pytest.approx(0.16))
    shares = frame.group_by("part").agg(pl.col("share").sum())
    assert shares["share"].to_list() == pytest.approx([1.0] * 3)


def test_overlapping_epochs_are_busy_once():
    rows = [(10.0, 4.0), (12.0, 4.0), (11.0, 1.0), (30.0, 5.0)]  # (end, length): [6, 10], [8, 12], [10, 11], [25, 30]
    frame = pl.DataFrame(rows, schema=["time", "time/forward_s"], orient="row")
    assert tables.busy_seconds(frame) == 6.0 + 5.0


def test_without_a_summary_time_is_that_of_the_runs(tmp_path):
    frame = tables.time_use(Results.open(Synthetic(tmp_path).whole(summary=False)))
    assert frame["part"].unique().to_list() == [tables.IN_RUNS]


def test_a_study_that_has_only_begun_has_empty_tables(tmp_path):
    Synthetic(tmp_path)
    results = Results.open(tmp_path)
    assert tables.headline(results).is_empty() and tables.learning_curves(results).is_empty()
    assert tables.time_use(results).is_empty()
    assert tables.searches(results)["trials"].null_count() == 6


def test_the_room_that_a_search_has():
    """By hand: three options times a width of 0.8; logarithmic widths in natural logarithms."""
    arms = [
        Arm("a", Training(), {"margin.k_delta": choice([1.0, 2.0, 4.0]), "loss.lam": uniform(0.2, 1.0)}),
        Arm("b", Training(), {"lr": loguniform(1e-4, 1e-3)}),
        Arm("c", Training()),
    ]
    frame = tables.spaces(study(arms=arms, comparison=Comparison()))
    assert frame["dimensions"].to_list() == [2, 1, 0]
    assert frame["volume"].to_list() == pytest.approx([3 * 0.8, math.log(10), 0.0])
    assert frame["space"].to_list()[0] == "margin.k_delta: 1 | 2 | 4, loss.lam: 0.2 to 1"


def test_two_studies_side_by_side(tmp_path):
    first = Results.open(Synthetic(tmp_path / "a").whole())
    fewer = Synthetic(tmp_path / "b", study(seeds=2, arms=study().arms[:2]))
    frame = tables.side_by_side(first, Results.open(fewer.whole()))
    row = frame.filter(dataset="oai", arm="automargin", metric="test/map").filter(pl.col("horizon").is_null())
    assert row.select("mean", "n", "mean_second", "n_second").row(0) == pytest.approx((0.92, 3, 0.91, 2))
    alone = frame.filter(arm="triplet")
    assert len(alone) and alone["mean_second"].is_null().all() and alone["mean"].is_not_null().all()
