from __future__ import annotations

import xml.etree.ElementTree as ET

import numpy as np
import polars as pl
import pytest

from marginlab.tracking import preview


def test_directions_are_the_principal_components():
    x = np.random.default_rng(0).normal(size=(40, 5)) * [1, 5, 2, 0.5, 0.1]
    found, share = preview.directions(x)
    values, vectors = np.linalg.eigh(np.cov(x.T))
    expected = (x - x.mean(0)) @ vectors[:, [-1, -2]]
    np.testing.assert_allclose(np.abs(found), np.abs(expected), atol=1e-9)
    assert share == pytest.approx(values[-2:].sum() / values.sum())
    assert (found[np.abs(found).argmax(axis=0), [0, 1]] > 0).all()


@pytest.mark.parametrize("x", [np.zeros((0, 4)), np.ones((1, 4)), np.ones((3, 4)), np.arange(3.0)[:, None]])
def test_little_to_see_is_no_failure(x):
    found, share = preview.directions(x)
    assert found.shape == (len(x), 2) and np.isfinite(found).all() and 0 <= share <= 1 + 1e-12


def test_the_picture_has_a_dot_per_image_of_the_largest_labels(tmp_path):
    label = np.repeat(np.arange(300), [5, 3] + [2] * 298)
    x = np.random.default_rng(0).normal(size=(len(label), 8)).astype(np.float32)
    frame = pl.DataFrame(
        {"row": np.arange(len(label)), "label": label, "embedding": pl.Series(list(x), dtype=pl.List(pl.Float32))}
    )
    frame.write_parquet(tmp_path / "e.parquet")
    root = ET.fromstring(preview.picture(tmp_path / "e.parquet"))
    name = "{http://www.w3.org/2000/svg}"
    dots = list(root.iter(f"{name}circle"))
    assert len(dots) == preview.IMAGES == 400
    for dot in dots:
        assert 0 < float(dot.get("cx")) < 720 and 0 < float(dot.get("cy")) < 540
    assert "400 of 604 images, 198 of 300 labels" in root.find(f"{name}text").text
