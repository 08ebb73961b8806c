from __future__ import annotations

import dataclasses
import xml.etree.ElementTree as ET

import numpy as np
import pytest
import torch

from marginlab.report.pictures import embedding_map
from marginlab.report.pictures.confirmed import Confirmed, Model, Seed
from tests.report.pictures.made import model, small_study, write_study


def spread(counts: list[int], d: int = 6) -> Model:
    """Subject i has ``counts[i]`` images, at months 0, 1, 2 ..."""
    label = np.repeat(np.arange(len(counts)), counts)
    months = np.concatenate([np.arange(n) for n in counts]).astype(np.float32)
    points = torch.nn.functional.normalize(torch.randn(len(label), d, generator=torch.Generator().manual_seed(0)))
    rows = np.arange(len(label))
    return Model(Seed("a", 0, 0, ()), rows, label, months, points, rows[months > 0], rows[months == 0], 1)


def test_the_axes_are_those_of_an_eigendecomposition():
    m = spread([4, 3, 3])
    made = embedding_map.project(m)
    points = m.embeddings.double().numpy()
    values, vectors = np.linalg.eigh(np.cov(points.T))
    assert made.share == pytest.approx(values[-2:].sum() / values.sum())
    flat = (points - points.mean(0)) @ vectors[:, [-1, -2]]
    for axis, own in zip(("x", "y"), flat.T, strict=True):
        found = made.frame[axis].to_numpy()
        assert np.allclose(found, own) or np.allclose(found, -own)


def test_the_subjects_with_most_images_are_shown_the_earliest_of_them():
    made = embedding_map.project(spread([2, 5, 3, 5]), subjects=3, most=4)
    assert made.frame["subject"].to_list() == [0] * 4 + [1] * 4 + [2] * 3  # subjects 1, 3, 2
    assert made.frame["months"].to_list() == [0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2]


def test_one_point_and_one_dimension_have_maps():
    assert embedding_map.project(spread([1])).share == 1.0
    flat = dataclasses.replace(model(), embeddings=torch.ones(6, 1))
    made = embedding_map.project(flat)
    assert made.frame["y"].to_list() == [0.0] * 6
    ET.fromstring(embedding_map.drawing(made, "a<b>&"))


def test_a_panel_per_arm_of_the_contrast_and_the_variance_in_the_caption(tmp_path):
    results = write_study(tmp_path, small_study(seeds=1))
    picture = embedding_map.picture(results, Confirmed.of(results, "oai"))
    assert [title for title, _ in picture.panels] == ["one", "two"]
    assert "100% (one), 100% (two)" in picture.caption  # two dimensions
    lonely = write_study(tmp_path / "lonely", small_study(seeds=1), without=("two",))
    picture = embedding_map.picture(lonely, Confirmed.of(lonely, "oai"))
    assert [title for title, _ in picture.panels] == ["one"] and "two has no seed" in picture.caption
