from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import polars as pl

from marginlab.data.bars import FLOOR, UP, bars

FRAME = pl.DataFrame({"name": ["40–49", "50–59", "60–69"], "train": [0.5, 0.25, 0.0], "test": [0.1, 0.0, 0.4]})


def shapes(svg: str, tag: str) -> list[ET.Element]:
    return [e for e in ET.fromstring(svg) if e.tag == tag]


def test_a_bar_is_as_high_as_its_share() -> None:
    drawn = shapes(bars(FRAME, "years", "share of images"), "rect")
    heights = [float(r.get("height", 0)) for r in drawn]
    assert heights == [UP, UP / 5, UP / 2, UP * 0.8]  # the axis ends at 50%; what is 0 has no bar
    assert all(abs(float(r.get("y", 0)) + h - FLOOR) < 0.11 for r, h in zip(drawn, heights, strict=True))
    assert drawn[0][0].text == "40–49: train 50.0%, test 10.0%"


def test_splits_are_told_by_more_than_colour_and_colours_are_the_pages() -> None:
    svg = bars(FRAME, "years", "share of images")
    assert {r.get("fill") for r in shapes(svg, "rect")} == {"var(--arm-0)", "none"}
    assert not re.findall(r"#[0-9a-f]{6}", svg)
    assert set(re.findall(r"var\((--[a-z0-9-]+)\)", svg)) == {"--ink", "--grid", "--arm-0", "--arm-1"}


def test_the_axis_says_what_it_is() -> None:
    svg = bars(FRAME, "years", "share of images")
    words = [t.text for t in shapes(svg, "text")]
    assert {"years", "share of images", "0%", "50%", "40–49"} <= set(words)
    assert ET.fromstring(svg).get("aria-label") == "share of images by years"


def test_names_that_have_no_room_are_left_out() -> None:
    many = pl.DataFrame({"name": [f"{i}–{i + 99}" for i in range(1000, 2400, 100)], "train": 0.1, "test": 0.1})
    names = [t.text for t in shapes(bars(many, "x", "y"), "text") if "–" in (t.text or "")]
    assert 2 <= len(names) <= 7


def test_words_are_escaped() -> None:
    assert "<b>" not in bars(FRAME.with_columns(name=pl.lit("<b>")), "x", "y")
