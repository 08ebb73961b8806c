"""Textures against their definition, and random draws that stay within their bounds."""

from __future__ import annotations

import numpy as np

from marginlab.data.phantom.draw import LIMIT, Machine, Texture, acquisition, bell, bounded, edge, generator, normal

MACHINE = Machine(
    rotation=0.2, shift=0.1, zoom=0.1, exposure=0.1, contrast=0.3, gamma=0.3, shade=0.1, noise=(0.01, 0.05)
)


def test_waves_are_the_sum_of_cosines_at_the_anatomical_coordinates() -> None:
    rng = generator("test", 1, 0)
    taken = acquisition([MACHINE.take(rng) for _ in range(3)])
    texture = Texture(10 * normal(rng, 3, 2, 5), normal(rng, 3, 5), normal(rng, 3, 5))
    origin = np.array([0.0, 0.1, -0.2])
    x, y = taken.coordinates(24)
    y = y - origin[:, None, None]
    expected = np.zeros_like(x)
    for i in range(3):
        for k in range(5):
            angle = texture.wave[i, 0, k] * x[i] + texture.wave[i, 1, k] * y[i] + texture.phase[i, k]
            expected[i] += texture.amplitude[i, k] * np.cos(angle)
    np.testing.assert_allclose(taken.waves(texture, 24, origin), expected, atol=1e-10)


def test_coordinates_of_a_picture_taken_straight_are_the_frame() -> None:
    straight = acquisition([np.array([0.0, 0, 0, 1, 0, 1, 1, 0, 0, 0])])
    x, y = straight.coordinates(4)
    np.testing.assert_allclose(x[0, 0], [-0.75, -0.25, 0.25, 0.75])
    np.testing.assert_allclose(y[0, :, 0], [-0.75, -0.25, 0.25, 0.75])


def test_a_plain_exposure_stores_the_density() -> None:
    straight = acquisition([np.array([0.0, 0, 0, 1, 0, 1, 1, 0, 0, 0])])
    density = np.linspace(-0.2, 1.2, 36).reshape(1, 6, 6)
    expected = np.rint(255 * np.clip(density, 0, 1))
    np.testing.assert_array_equal(straight.develop(density, np.ones_like(density)), expected)


def test_bounded_draws_are_normal_draws_cut_off() -> None:
    z = bounded(generator("test", 1, 0), 20_000)
    assert np.abs(z).max() <= LIMIT
    assert abs(z.mean()) < 0.03
    assert abs(z.std() - 0.98) < 0.03  # of a normal distribution whose tails beyond 2.5 lie at 2.5


def test_edges_and_bells_have_the_shape_they_promise() -> None:
    d = np.array([-1.0, -0.05, 0.0, 0.05, 1.0])
    np.testing.assert_allclose(edge(d, 0.1), [0, 0, 0.5, 1, 1])
    np.testing.assert_allclose(bell(np.array([0.0, 0.2, 0.3]), 0.1), [1, 0, 0])


def test_generators_differ_by_place_kind_seed_and_version() -> None:
    first = {
        generator(*args).random()
        for args in (("a", 1, 0, 0), ("b", 1, 0, 0), ("a", 2, 0, 0), ("a", 1, 1, 0), ("a", 1, 0, 1))
    }
    assert len(first) == 5
