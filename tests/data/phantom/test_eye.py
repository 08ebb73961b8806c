"""Fundi: two eyes of a person, and lesions that make the grade."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from marginlab.data.phantom.eye import ANATOMY, BLOCK, LESIONS, SIDES, TAPE, both_grades, eyes
from marginlab.data.phantom.eye_picture import render
from marginlab.data.phantom.vessels import Canvas, tree


def test_both_eyes_of_a_person_are_alike() -> None:
    both = [eyes(1, 0, s) for s in range(80)]
    for name, (typical, spread) in ANATOMY.items():
        z = np.array([[(b[side].traits[name] - typical) / spread for side in SIDES] for b in both])
        assert np.abs(z).max() <= 2.5 + 1e-9
        within, between = np.abs(z[:, 0] - z[:, 1]).mean(), np.abs(z[:-1, 0] - z[1:, 1]).mean()
        assert within < 0.7 * between
    tapes = np.array([[b[side].tape for side in SIDES] for b in both])
    assert 0.8 < np.corrcoef(tapes[:, 0].ravel(), tapes[:, 1].ravel())[0, 1] < 0.9


def test_grades_have_the_real_shares_and_small_sets_have_each() -> None:
    """The facts' shares within four standard errors of 4,000 persons; the fellow eye's grade as often the same (87.5%)."""
    grades = np.array([both_grades(1, 3, s) for s in range(4000)])
    for side in (0, 1):
        shares = np.bincount(grades[:, side], minlength=5) / 4000
        for share, known in zip(shares, (0.735, 0.07, 0.15, 0.025, 0.02), strict=True):
            assert abs(share - known) < 4 * np.sqrt(known * (1 - known) / 4000)
    assert 0.83 < (grades[:, 0] == grades[:, 1]).mean() < 0.92
    for seed in range(20):
        block = [both_grades(1, seed, s) for s in range(BLOCK, 2 * BLOCK)]
        assert {g for pair in block for g in pair} == {0, 1, 2, 3, 4}


def test_the_lesions_are_those_of_the_grade() -> None:
    seen = [e for s in range(120) for e in eyes(1, 1, s).values()]
    assert {e.grade for e in seen} == {0, 1, 2, 3, 4}
    for e in seen:
        kinds = [lesion.kind for lesion in e.lesions]
        for kind, counts in LESIONS.items():
            low, high = counts[e.grade]
            assert low <= kinds.count(kind) <= high
        for lesion in e.lesions:
            assert np.hypot(lesion.x, lesion.y) < 1


def test_lesion_pixels_rise_with_the_grade() -> None:
    """Mean share of pixels that the lesions change, over the eyes of each grade; none where there are none."""
    shares: dict[int, list[float]] = {g: [] for g in range(5)}
    for s in range(200):
        for side, e in eyes(1, 2, s).items():
            if len(shares[e.grade]) < 6:
                with_lesions = render(1, 2, s, 64, side, e).astype(int)
                without = render(1, 2, s, 64, side, dataclasses.replace(e, lesions=())).astype(int)
                shares[e.grade].append(float((np.abs(with_lesions - without).max(-1) > 12).mean()))
    assert max(shares[0]) == 0
    means = [np.mean(shares[g]) for g in range(5)]
    assert (np.diff(means) > 0.002).all()
    assert min(shares[3]) > max(shares[1])


def test_pictures_are_the_same_on_every_run_and_whatever_else_is_drawn() -> None:
    both = eyes(1, 0, 3)
    picture = render(1, 0, 3, 48, "left", both["left"])
    assert picture.dtype == np.uint8 and picture.shape == (48, 64, 3)
    np.testing.assert_array_equal(picture, render(1, 0, 3, 48, "left", eyes(1, 0, 3)["left"]))
    for other in (
        render(1, 0, 4, 48, "left", eyes(1, 0, 4)["left"]),
        render(1, 1, 3, 48, "left", eyes(1, 1, 3)["left"]),
    ):
        assert (picture != other).mean() > 0.4


def test_a_fundus_is_round_and_reddish_with_the_disc_on_the_side_of_the_nose() -> None:
    """The nose is on the right of a right eye's picture, on the left of a left eye's."""
    mean = {
        side: np.mean([render(1, 0, s, 48, side, eyes(1, 0, s)[side]) for s in range(30)], axis=0) for side in SIDES
    }
    for side, picture in mean.items():
        assert picture[:4, :4].max() < 8 and picture[-4:, -4:].max() < 8
        red, green, blue = picture[10:38, 18:46].mean((0, 1))
        assert red > 1.4 * green > 1.4 * 1.4 * blue
        brightest = picture[..., 1].max(0).argmax()
        assert 40 < brightest < 50 if side == "right" else 14 < brightest < 24


def test_the_vessels_use_up_the_tape_and_keep_away_from_the_fovea() -> None:
    e = eyes(1, 0, 0)["right"]
    canvas = Canvas(160, 160, lambda p: 80.0 * (p + 1.0), 80.0)
    dark, bright = tree(e, canvas)
    assert dark.min() == 0 and 0.5 < dark.max() <= 1 and bright.max() > 0
    y, x = (int(80 * (e.traits[k] + 1)) for k in ("fovea_y", "fovea_x"))
    assert dark[y - 6 : y + 7, x - 6 : x + 7].max() == 0
    with pytest.raises(RuntimeError, match="StopIteration"):
        tree(dataclasses.replace(e, tape=e.tape[: TAPE - 2]), canvas)


def test_a_stroke_is_as_thick_as_it_says() -> None:
    """A line of radius 3 pixels across a canvas of 20 covers 6 rows of 20 pixels."""
    canvas = Canvas(20, 20, lambda p: p, 1.0)
    line = np.stack([np.linspace(-5.0, 25.0, 31), np.full(31, 10.0)], 1)
    stroke = canvas.stroke(line, np.full(31, 3.0))
    assert abs(stroke.sum() / 20 - 6.0) < 1.0
    np.testing.assert_allclose(stroke[9:11], 1.0)
    assert stroke[:6].max() == 0 and stroke[14:].max() == 0


def test_version_1_is_frozen() -> None:
    """Mean colour of 2 x 2 parts of one picture: whoever changes a parameter has to raise the version."""
    picture = render(1, 0, 0, 48, "right", eyes(1, 0, 0)["right"]).astype(float)
    parts = picture.reshape(2, 24, 2, 32, 3).mean((1, 3)).reshape(4, 3)
    np.testing.assert_allclose(parts, FROZEN, atol=0.5)


FROZEN = [[105.5, 41.6, 18.8], [98.1, 43.4, 21.1], [104.0, 43.3, 20.7], [95.2, 41.8, 20.8]]
