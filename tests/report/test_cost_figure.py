"""The headline figure says what it shows: what is faint, what is dotted, and that one search has no band."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

from marginlab.report.cost_figure import drawings
from marginlab.results import Results
from tests.report.synthetic import Synthetic
from tests.test_cost import AUTO, FIXED, question, searched, trained_again


def test_search_values_alone_are_said_to_be_optimistic(tmp_path: Path) -> None:
    made = Synthetic(tmp_path, question())
    searched(made, "automargin", AUTO)
    searched(made, "fixed", FIXED)
    (picture,) = drawings(Results.open(tmp_path)).values()
    assert picture.title == "Best validation mAP so far against what it cost" and len(picture.panels) == 2
    assert (
        "they are optimistic" in picture.caption and "Each arm was searched once: there is no band" in picture.caption
    )
    assert "less the margin of 0.01. Hollow: the published default, as its one trial had it." in picture.caption
    for (_, svg), axis in zip(picture.panels, ("epochs spent by a search", "seconds spent by a search"), strict=True):
        ElementTree.fromstring(svg)
        assert axis in svg and "target: automargin" in svg and "target: fixed" in svg
        assert "var(--arm-0)" in svg and "var(--arm-1)" in svg and "opacity: 0.16" not in svg
    assert picture.panels[0][1].count('id="cost0-epochs-') and not picture.panels[0][1].count('id="cost0-seconds-')


def test_with_fresh_seeds_and_replicates_there_are_both_curves_and_a_band(tmp_path: Path) -> None:
    made = Synthetic(tmp_path, question(replicates=2, defaults=True, incumbents=2))
    for replicate in (0, 1):
        searched(made, "automargin", AUTO, replicate)
        searched(made, "fixed", FIXED, replicate)
    trained_again(made)  # both replicates tried the same
    (picture,) = drawings(Results.open(tmp_path)).values()
    assert "Thick: the leading configuration trained again on fresh seeds (means of 2)." in picture.caption
    assert "Lines are medians of 2 search replicates, bands their range." in picture.caption
    assert "Hollow: the published default, on fresh seeds, where its one trial stands." in picture.caption
    assert "opacity: 0.16" in picture.panels[0][1] and "opacity: 0.45" in picture.panels[0][1]


def test_a_dataset_without_a_completed_trial_has_no_figure(tmp_path: Path) -> None:
    made = Synthetic(tmp_path, question())
    assert drawings(Results.open(tmp_path)) == {}
    searched(made, "fixed", [FIXED[1]])
    assert drawings(Results.open(tmp_path)) == {}
