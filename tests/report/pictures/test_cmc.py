from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import polars as pl
import pytest

from marginlab.report.pictures import cmc
from marginlab.report.pictures.confirmed import Confirmed
from tests.report.pictures.made import LABEL, MONTHS, RIGHT, ROWS, circle, small_study, write_study
from tests.report.synthetic import write_test_embeddings


@pytest.fixture
def results(tmp_path):
    """Arm one: seed 0 has the first right answers at ranks 1, 2, 1, seed 1 at 1, 1, 1. Arm two: 1, 1, 1 both times."""
    results = write_study(tmp_path, small_study(seeds=2))
    seed = Confirmed.of(results, "oai").seeds[1]
    write_test_embeddings(seed.paths[0].parents[1], ROWS, LABEL, MONTHS, circle(RIGHT))
    return results


def test_curves_are_means_over_seeds(results):
    frame = cmc.curves(results.queries(), 3).filter(pl.col("horizon").is_null())
    one = frame.filter(arm="one").sort("rank")
    assert one["rank"].to_list() == [1, 2, 3]
    assert one["mean"].to_list() == pytest.approx([(2 / 3 + 1) / 2, 1, 1])
    assert one["se"].to_list() == pytest.approx([(1 / 3) / 2, 0, 0])  # sd = d / sqrt(2), over sqrt(2)
    assert set(one["n"]) == {2} and set(one["queries"]) == {3}
    assert frame.filter(arm="two")["mean"].to_list() == [1, 1, 1]


def test_the_nearest_and_the_furthest_horizon_have_curves_of_their_own(results):
    frame = cmc.curves(results.queries(), 3)
    assert frame["horizon"].unique(maintain_order=True).to_list() == [None, 12, 36]
    assert set(frame.filter(horizon=12)["queries"]) == {1}


def test_queries_without_a_right_answer_are_left_out(results):
    queries = results.queries()
    lonely = queries.with_columns(mrr=pl.when(pl.col("months") == 36).then(float("nan")).otherwise("mrr"))
    frame = cmc.curves(lonely, 3)
    assert set(frame["queries"]) == {1, 2} and set(frame["horizon"]) == {None, 12, 24}
    assert cmc.curves(queries.with_columns(mrr=float("nan"))).is_empty()


def test_curves_end_with_the_gallery(results):
    picture = cmc.picture(results, Confirmed.of(results, "oai"))
    assert [title for title, _ in picture.panels] == [
        "all 3 queries",
        "12 months (1 query)",
        "36 months (1 query)",
    ]


def test_the_drawing_has_a_line_and_marks_per_arm(results):
    frame = cmc.curves(results.queries(), 3).filter(pl.col("horizon").is_null())
    svg = cmc.drawing(frame, ["one", "two", "absent"])
    ET.fromstring(svg)
    assert {"var(--arm-0)", "var(--arm-1)"} <= set(re.findall(r"var\(--arm-\d\)", svg)) and "var(--arm-2)" not in svg
