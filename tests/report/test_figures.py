from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import polars as pl
import pytest

from marginlab import tables
from marginlab.report import figures

ARMS = ["automargin", "fixed", "triplet"]


@pytest.fixture(scope="module")
def frames(results):
    single = tables.single_curves(results).filter(dataset="oai", metric="val/map")
    mean = tables.learning_curves(results).filter(dataset="oai", metric="val/map")
    return single, mean


def panel(frames, **changes):
    arguments = {"arms": ARMS, "arm": "fixed", "axis": (0.0, 1.0)}
    return figures.validation_panel(*frames, **{**arguments, **changes})


def curves(svg: str, colour: str) -> list[str]:
    return [style for style in re.findall(r'<path d="[^"]*"[^>]*style="([^"]*)"', svg) if f"stroke: {colour}" in style]


def test_a_panel_draws_its_arm_in_its_colour_and_the_others_in_grey(frames):
    svg = panel(frames)
    ET.fromstring(svg)
    assert len(curves(svg, "var(--arm-1)")) == 3 + 3 + 1  # trials, confirmation runs, their mean
    assert "var(--arm-0)" not in svg and "var(--arm-2)" not in svg
    assert len([s for s in curves(svg, "var(--ink)") if "opacity: 0.35" in s]) == 2


def test_drawings_take_every_colour_from_the_page(frames, results):
    drawn = [panel(frames), figures.margin_panel(*frames, ARMS, "epsilon")]
    drawn.append(
        figures.horizon_panel(tables.headline(results).filter(dataset="oai", metric="test/map"), ARMS, "test mAP")
    )
    for svg in drawn:
        ET.fromstring(svg)
        assert not re.findall(r"#[0-9a-f]{6}", svg)
        assert set(re.findall(r"var\((--[a-z0-9-]+)\)", svg)) <= {
            "--ink",
            "--grid",
            "--type",
            "--arm-0",
            "--arm-1",
            "--arm-2",
        }


def test_two_drawings_on_a_page_share_no_id(frames):
    drawn = [figures.with_ids(panel(frames), prefix) for prefix in ("a-", "b-")]
    ids = [set(re.findall(r'\bid="([^"]*)"', svg)) for svg in drawn]
    assert ids[0] and not ids[0] & ids[1]
    for svg, own in zip(drawn, ids, strict=True):
        assert {a or b for a, b in re.findall(r'url\(#([^)]*)\)|href="#([^"]*)"', svg)} <= own


def test_numbers_on_the_axes_are_not_cut(frames):
    single, mean = (f.with_columns(pl.col(c) / 100) for f, c in zip(frames, ("value", "mean"), strict=True))
    svg = panel((single, mean), axis=(0.00100, 0.00500))
    assert {">0.0016<", ">0.0032<"} <= set(re.findall(r">[\d.]+<", svg))


def test_many_trials_and_epochs_stay_small():
    runs, epochs = 500, 400
    single = pl.DataFrame(
        {
            "id": [f"{r}" for r in range(runs) for _ in range(epochs)],
            "kind": ["trial"] * runs * epochs,
            "arm": ["fixed"] * runs * epochs,
            "epoch": list(range(epochs)) * runs,
            "value": [(r * 31 + e * 17) % 97 / 97 for r in range(runs) for e in range(epochs)],
        }
    )
    mean = single.filter(id="0").select("arm", "epoch", mean="value", n=pl.lit(1))
    svg = panel((single, mean))
    assert len(curves(svg, "var(--arm-1)")) == figures.MOST_TRIALS + 1
    assert len(svg) < 350_000


def test_a_mean_ends_where_runs_are_lacking():
    mean = pl.DataFrame({"arm": ["a"] * 3, "epoch": [0, 1, 2], "mean": [0.1, 0.2, 0.9], "n": [3, 3, 1]})
    assert figures._whole(mean, "a")["epoch"].to_list() == [0, 1]


def test_names_are_text_not_markup_or_mathematics(frames):
    arm = "a<b>&$x$"
    single, mean = (f.with_columns(arm=pl.lit(arm)) for f in frames)
    svg = figures.margin_panel(single, mean, [arm], "<i>&$\\frac$")
    ET.fromstring(svg)
    assert "<i>" not in svg and "&lt;i&gt;&amp;$\\frac$" in svg


def test_every_arm_has_a_look_of_its_own():
    looks = {(figures.arm_colour(i), figures.dash(i), figures.glyph(i)) for i in range(40)}
    assert len(looks) == 40
    assert len(figures.GLYPHS) == len(figures.MARKERS)
