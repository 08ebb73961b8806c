from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import polars as pl
import pytest

from marginlab.report.pictures import cmc
from marginlab.report.pictures.confirmed import Confirmed
from marginlab.report.pictures.ranks import first_ranks
from tests.report.pictures.made import LABEL, MONTHS, RIGHT, ROWS, circle, small_study, write_study
from tests.report.synthetic import write_test_embeddings


@pytest.fixture
def confirmed(tmp_path):
    """Arm one: seed 0 has the first right answers at ranks 1, 2, 1, seed 1 at 1, 1, 1. Arm two: 1, 1, 1 both times."""
    confirmed = Confirmed.of(write_study(tmp_path, small_study(seeds=2)), "oai")
    write_test_embeddings(confirmed.seeds[1].paths[0].parents[1], ROWS, LABEL, MONTHS, circle(RIGHT))
    return confirmed


def test_curves_are_means_over_seeds(confirmed):
    frame = cmc.curves(confirmed).filter(pl.col("horizon").is_null())
    one = frame.filter(arm="one").sort("rank")
    assert one["rank"].to_list() == [1, 2, 3]  # no longer than the gallery
    assert one["mean"].to_list() == pytest.approx([(2 / 3 + 1) / 2, 1, 1])
    assert one["se"].to_list() == pytest.approx([(1 / 3) / 2, 0, 0])  # sd = d / sqrt(2), over sqrt(2)
    assert set(one["n"]) == {2} and set(one["queries"]) == {3}
    assert frame.filter(arm="two")["mean"].to_list() == [1, 1, 1]


def test_the_nearest_and_the_furthest_horizon_have_curves_of_their_own(confirmed):
    frame = cmc.curves(confirmed)
    assert frame["horizon"].unique(maintain_order=True).to_list() == [None, 12, 36]
    assert set(frame.filter(horizon=12)["queries"]) == {1}


def test_ranks_are_kept_and_made_anew_where_damaged(confirmed):
    seed = confirmed.seeds[0]
    made = first_ranks(confirmed, seed)
    assert made["first"].to_list() == [1, 2, 1] and made["months"].to_list() == [12, 24, 36]
    (kept,) = (confirmed.folder / "scores").iterdir()
    seed.paths[0].rename(seed.paths[0].with_name("away"))
    assert first_ranks(confirmed, seed).equals(made)
    seed.paths[0].with_name("away").rename(seed.paths[0])
    kept.write_bytes(b"damaged")
    assert first_ranks(confirmed, seed).equals(made) and pl.read_parquet(kept).equals(made)


def test_the_drawing_has_a_line_and_marks_per_arm(confirmed):
    frame = cmc.curves(confirmed).filter(pl.col("horizon").is_null())
    svg = cmc.drawing(frame, ["one", "two", "absent"])
    ET.fromstring(svg)
    assert {"var(--arm-0)", "var(--arm-1)"} <= set(re.findall(r"var\(--arm-\d\)", svg)) and "var(--arm-2)" not in svg
