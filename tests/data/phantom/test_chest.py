"""Chests: what stays, what moves, what comes and goes."""

from __future__ import annotations

import numpy as np

from marginlab.data.phantom.chest import ANATOMY, FINDINGS, Visit, chest, visit
from marginlab.data.phantom.chest_picture import render

MANY = range(60)


def seen(seed: int, subject: int, years: tuple[float, ...] = (0.0, 0.5, 3.0, 11.0)) -> list[Visit]:
    person = chest(1, seed, subject)
    return [visit(1, seed, subject, person, i, y) for i, y in enumerate(years)]


def test_every_parameter_is_bounded_at_every_age() -> None:
    for subject in MANY:
        for v in seen(0, subject, (0.0, 12.0)):
            for name, (typical, spread) in ANATOMY.items():
                assert abs(v.trait(name) - typical) <= 3.5 * spread + 1e-12
            assert 0 <= v.lines <= 3
            assert v.view in ("AP", "PA")


def test_anatomy_moves_away_from_the_first_picture_year_by_year() -> None:
    spread = np.array([s for _, s in ANATOMY.values()])
    years = (0.0, 1.0, 2.0, 4.0, 8.0, 12.0)
    traits = np.array([[[v.trait(k) for k in ANATOMY] for v in seen(0, s, years)] for s in MANY]) / spread
    moved = np.abs(traits - traits[:, :1]).mean((0, 2))
    assert (np.diff(moved) > 0).all()
    assert moved[-1] < 2.5  # people stay themselves


def test_hearts_grow_on_average() -> None:
    widths = np.array([[v.trait("heart_width") for v in seen(0, s, (0.0, 10.0))] for s in MANY])
    assert (widths[:, 1] - widths[:, 0]).mean() > 0.01


def test_lines_and_opacities_come_and_go_and_are_labelled() -> None:
    visits = [v for s in MANY for v in seen(0, s)]
    assert {v.view for v in visits} == {"AP", "PA"}
    lines = {view: np.mean([v.lines for v in visits if v.view == view]) for view in ("AP", "PA")}
    assert lines["AP"] > 3 * lines["PA"]
    assert any(len({v.findings for v in seen(0, s)}) > 1 for s in MANY)
    labels = {label for v in visits for label in v.labels.split("|")}
    assert labels == {"No Finding", "Cardiomegaly", *FINDINGS}


def test_pictures_are_the_same_on_every_run_and_whatever_else_is_drawn() -> None:
    visits = seen(0, 3)
    together = render(1, 0, 3, 40, visits)
    assert together.dtype == np.uint8
    assert together.shape == (4, 40, 40)
    np.testing.assert_array_equal(together, render(1, 0, 3, 40, seen(0, 3)))
    for i, v in enumerate(visits):
        np.testing.assert_array_equal(together[i], render(1, 0, 3, 40, [v])[0])
    assert (together[0] != render(1, 0, 4, 40, seen(0, 4))[0]).mean() > 0.5
    assert (together[0] != render(1, 1, 3, 40, seen(1, 3))[0]).mean() > 0.5


def test_lungs_are_dark_and_the_middle_is_bright() -> None:
    mean = np.concatenate([render(1, 0, s, 48, seen(0, s)) for s in MANY]).mean(0)
    lung, spine, abdomen = mean[14:26, 10:16], mean[14:26, 22:26], mean[42:46, 10:16]
    assert lung.mean() + 25 < min(spine.mean(), abdomen.mean())


def test_version_1_is_frozen() -> None:
    """Mean grey of 3 x 3 parts of one picture: whoever changes a parameter has to raise the version."""
    picture = render(1, 0, 0, 48, seen(0, 0))[2].astype(float)
    parts = picture.reshape(3, 16, 3, 16).mean((1, 3))
    np.testing.assert_allclose(parts, FROZEN, atol=0.5)


FROZEN = [[40.1, 104.2, 62.7], [48.7, 114.9, 94.4], [84.5, 151.8, 125.2]]
