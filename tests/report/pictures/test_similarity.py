from __future__ import annotations

import xml.etree.ElementTree as ET

import numpy as np
import polars as pl
import pytest

from marginlab.report.pictures import similarity
from marginlab.values import InputError
from tests.report.pictures.made import small_study, write_study


def dense(angles: list[float]) -> dict[float, float]:
    """Density by the lower edge of the bin, of similarities that are the cosines of these angles (degrees)."""
    bins = [int((np.cos(np.deg2rad(a)) + 1) / similarity.WIDTH) for a in angles]
    return {b: bins.count(b) / len(bins) / similarity.WIDTH for b in bins}


def test_densities_by_hand(tmp_path):
    """Images at 0, 40, 90 (month 0) and 10, 15, 80 degrees: positive pairs 10, 25 and 10 degrees apart."""
    pairs, marks = similarity.distributions(write_study(tmp_path, small_study(seeds=2)), "oai")
    one = pairs.filter(arm="one")
    found = {k: v for k, v in enumerate(one["positive"]) if v}
    assert found == pytest.approx(dense([10, 25, 10]))
    negative = [40, 15, 90, 80, 50, 80, 30, 5, 70, 75, 40, 65]
    assert {k: v for k, v in enumerate(one["negative"]) if v} == pytest.approx(dense(negative))
    assert one.select(pl.col("positive", "negative").sum() * similarity.WIDTH).row(0) == pytest.approx((1, 1))
    row = marks.filter(arm="one").row(0, named=True)
    assert row["runs"] == 2 and row["epsilon"] == 0.25 and row["beta"] == 0.0
    assert row["positive"] == pytest.approx(np.mean(np.cos(np.deg2rad([10, 25, 10]))), abs=similarity.WIDTH)


def test_pairs_of_one_visit_are_no_positives(tmp_path):
    results = write_study(tmp_path, small_study(seeds=1))
    for path in results.folder.rglob("validation.parquet"):
        pl.read_parquet(path).with_columns(months=pl.lit(0, pl.Float32)).write_parquet(path)
    with pytest.raises(InputError, match="No confirmation run"):
        similarity.picture(results, "oai")


def test_many_images_are_thinned_by_whole_subjects(monkeypatch):
    monkeypatch.setattr(similarity, "IMAGES", 12)
    subjects = np.repeat(np.arange(12), 3)
    assert subjects[similarity._thinned(subjects)].tolist() == [0, 0, 0, 3, 3, 3, 6, 6, 6, 9, 9, 9]
    grades = np.repeat(np.arange(3), 12)  # so few, and so many of each
    assert np.bincount(grades[similarity._thinned(grades)]).tolist() == [4, 4, 4]


def test_an_arm_without_runs_has_no_panel(tmp_path):
    results = write_study(tmp_path, small_study(seeds=1), without=("one",))
    picture = similarity.picture(results, "oai")
    assert [title for title, _ in picture.panels] == ["two"] and "best epoch alone." in picture.caption


def test_margins_are_marked_and_names_are_text(tmp_path):
    pairs, marks = similarity.distributions(write_study(tmp_path, small_study(seeds=1)), "oai")
    arm = "<b>$x$"
    pairs, marks = (f.filter(arm="one").with_columns(arm=pl.lit(arm)) for f in (pairs, marks))
    svg = similarity.drawing(pairs, marks.with_columns(beta=pl.lit(0.5)), [arm], arm, (-1.0, 1.0))
    ET.fromstring(svg)
    assert "ε 0.25" in svg and "β 0.50" in svg and "<b>" not in svg
    without = similarity.drawing(
        pairs, marks.with_columns(epsilon=pl.lit(None), beta=pl.lit(None)), [arm], arm, (-1.0, 1.0)
    )
    assert "ε" not in without and "β" not in without


def test_means_over_epochs_are_those_of_confirmation_runs(tmp_path):
    results = write_study(tmp_path, small_study(seeds=2))
    assert similarity.means(results, "oai").is_empty()  # not recorded
    epochs = results.epochs().with_columns(
        (pl.col("seed_index") * 0.2 + 0.1 * pl.col("epoch")).alias("train/sim_positive"),
        pl.lit(-0.5).alias("train/sim_negative"),
    )
    object.__setattr__(results, "_epochs", epochs)
    means = similarity.means(results, "oai").filter(arm="one")
    assert means["epoch"].to_list() == [0, 1, 2, 3, 4]
    assert means["positive"].to_list() == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5])
    assert set(means["negative"]) == {-0.5}
    picture = similarity.picture(results, "oai")
    assert len(picture.panels) == 3 and "drawn last" in picture.caption
