"""Knees: what stays, what moves, what both sides share."""

from __future__ import annotations

import numpy as np

from marginlab.data.phantom.draw import LIMIT
from marginlab.data.phantom.knee import ANATOMY, JOINT_FLOOR, SIDES, Visit, knees
from marginlab.data.phantom.knee_picture import render

MONTHS = (0, 12, 24, 36, 48, 72, 96)
MANY = range(60)


def both(seed: int, subject: int, months: tuple[int, ...] = (0, 96)) -> list[Visit]:
    pair = knees(1, seed, subject)
    return [Visit(pair[side], side, m) for m in months for side in SIDES]


def test_joint_spaces_only_narrow_and_osteophytes_only_grow() -> None:
    for subject in MANY:
        for knee in knees(1, 0, subject).values():
            spaces = np.array([knee.space(m) for m in MONTHS])
            spurs = np.array([knee.spurs(m) for m in MONTHS])
            grades = [knee.grade(m) for m in MONTHS]
            assert (np.diff(spaces, axis=0) <= 0).all()
            assert (spaces[-1] < spaces[0]).any() or (spaces[0] == JOINT_FLOOR).all()
            assert (np.diff(spurs, axis=0) >= 0).all()
            assert grades == sorted(grades)


def test_a_replaced_joint_stays_replaced_and_few_are() -> None:
    replaced = np.array([[k.replaced(m) for m in MONTHS] for s in range(300) for k in knees(1, 0, s).values()])
    assert (np.diff(replaced.astype(int), axis=1) >= 0).all()
    assert 0.01 < replaced[:, -1].mean() < 0.15


def test_every_parameter_is_bounded() -> None:
    for subject in MANY:
        for knee in knees(1, 0, subject).values():
            for name, (typical, spread) in ANATOMY.items():
                assert abs(knee.traits[name] - typical) <= LIMIT * spread + 1e-12
            assert all(JOINT_FLOOR <= s <= 0.2 for m in MONTHS for s in knee.space(m))
            assert all(0 <= s <= 0.16 for m in MONTHS for s in knee.spurs(m))
            assert all(0 <= knee.grade(m) <= 4 for m in MONTHS)
    assert len({knees(1, 0, s)["L"].grade(0) for s in MANY}) >= 3


def test_the_two_knees_of_a_person_are_alike_but_not_the_same() -> None:
    spread = np.array([s for _, s in ANATOMY.values()])
    traits = np.array([[list(k.traits.values()) for k in knees(1, 0, s).values()] for s in MANY]) / spread
    own = np.abs(traits[:, 0] - traits[:, 1]).mean()
    others = np.abs(traits[:-1, 0] - traits[1:, 1]).mean()
    assert 0.1 < own < 0.6 * others


def test_right_knees_are_stored_as_mirror_images() -> None:
    # The fibula, beside the shaft of the tibia, is on the outside: to the right of a left knee.
    pictures = np.stack([render(1, 0, s, 48, both(0, s, (0,))) for s in MANY]).astype(float)
    right, left = pictures.mean(0)[:, 38:]
    assert left[:, 33:40].mean() > left[:, 8:15].mean() + 5
    assert right[:, 8:15].mean() > right[:, 33:40].mean() + 5


def test_pictures_are_the_same_on_every_run_and_whatever_else_is_drawn() -> None:
    visits = both(0, 3, MONTHS)
    together = render(1, 0, 3, 40, visits)
    assert together.dtype == np.uint8
    assert together.shape == (len(visits), 40, 40)
    np.testing.assert_array_equal(together, render(1, 0, 3, 40, both(0, 3, MONTHS)))
    for i in (0, 5, 13):
        np.testing.assert_array_equal(together[i], render(1, 0, 3, 40, [visits[i]])[0])
    assert (together[0] != render(1, 0, 4, 40, both(0, 4))[0]).mean() > 0.5
    assert (together[0] != render(1, 1, 3, 40, both(1, 3))[0]).mean() > 0.5


def test_pictures_use_the_range_of_greys() -> None:
    pictures = np.concatenate([render(1, 0, s, 48, both(0, s)) for s in range(12)])
    assert 0.25 < pictures.mean() / 255 < 0.55
    assert ((pictures == 0) | (pictures == 255)).mean() < 0.15


def test_version_1_is_frozen() -> None:
    """Mean grey of 3 x 3 parts of one picture: whoever changes a parameter has to raise the version."""
    picture = render(1, 0, 0, 48, both(0, 0))[1].astype(float)
    parts = picture.reshape(3, 16, 3, 16).mean((1, 3))
    np.testing.assert_allclose(parts, FROZEN, atol=0.5)


FROZEN = [[70.1, 168.1, 77.6], [84.3, 153.2, 96.1], [57.7, 154.1, 71.8]]
