from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from marginlab import augment
from marginlab.augment import COLUMNS, NOISE_OFFSETS, Augment
from marginlab.values import InputError, fingerprint, from_json, stable_seed, to_json

torch.set_num_threads(1)

PLAIN = (0.0,), (1.0,)  # mean and std that leave pixel / 255


def images(n=3, channels=1, size=24, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (n, channels, size, size), dtype=np.uint8))


def draws(n=1, **given):
    """Parameters that change nothing, but for those given."""
    rows = np.tile(np.array([0, 0, 0, 0.5, 0.5, 1], dtype=np.float32), (n, 1))
    for name, x in given.items():
        rows[:, COLUMNS.index(name)] = x
    return torch.from_numpy(rows)


def plainly(image, row, crop):
    """One image [C, S, S] through the published transforms, one after the other, in float64 numpy and scipy."""
    gain, offset, angle, top, left, gamma = map(float, row)
    x = image.astype(np.float64)
    bank = np.random.default_rng(stable_seed("augment noise bank")).standard_normal(
        NOISE_OFFSETS + x.size, dtype=np.float32
    )
    noise = bank[int(offset) : int(offset) + x.size].reshape(x.shape).astype(np.float64)
    noise = 255 * (noise - noise.min()) / (noise.max() - noise.min())
    x = (1 - gain) * x + gain * noise
    x = np.stack([rotated(channel, angle) for channel in x])
    room = x.shape[-1] - crop
    i, j = int(top * (room + 1)), int(left * (room + 1))
    x = x[:, i : i + crop, j : j + crop]
    return (255 * (x / 255) ** (1 / gamma)) / 255


def rotated(channel, degrees):
    """Counter-clockwise about the centre, bilinear, zeros outside: scipy's affine_transform maps output to input places."""
    a = np.deg2rad(degrees)
    back = np.array([[np.cos(a), np.sin(a)], [-np.sin(a), np.cos(a)]])  # of (row, column), rows downwards
    centre = (np.array(channel.shape) - 1) / 2
    padded = np.pad(channel, 1)  # scipy does not blend with the outside, grid_sample and OpenCV do
    return ndimage.affine_transform(padded, back, centre + 1 - back @ centre, output_shape=channel.shape, order=1)


@settings(max_examples=40, deadline=None)
@given(
    gain=st.floats(0, 1),
    offset=st.integers(0, NOISE_OFFSETS - 1),
    angle=st.floats(-180, 180),
    top=st.floats(0, 0.999),
    left=st.floats(0, 0.999),
    gamma=st.floats(0.3, 3),
    channels=st.integers(1, 2),
    size=st.integers(16, 33),
)
def test_against_one_transform_after_the_other(gain, offset, angle, top, left, gamma, channels, size):
    x = images(2, channels, size)
    row = draws(2, noise_gain=gain, noise_offset=offset, angle=angle, top=top, left=left, gamma=gamma)
    got = Augment(crop=16).train(x, row, (0.0,) * channels, (1.0,) * channels).numpy()
    for image, one, r in zip(x.numpy(), got, row.numpy(), strict=True):
        # compared before gamma, whose slope at black is infinite
        np.testing.assert_allclose(one ** float(r[5]), plainly(image, r, 16) ** float(r[5]), atol=2e-4)


def test_a_quarter_turn_is_numpys():
    x = images(2, 1, 21)
    got = Augment(crop=21).train(x, draws(2, angle=90), *PLAIN)
    np.testing.assert_allclose(got[:, 0].numpy() * 255, np.rot90(x[:, 0].numpy(), axes=(1, 2)), atol=1e-2)


def test_a_turn_brings_in_black_corners():
    white = torch.full((1, 1, 32, 32), 255, dtype=torch.uint8)
    got = Augment(crop=32).train(white, draws(angle=45), *PLAIN)
    assert got[0, 0, 0, 0] == 0
    assert got[0, 0, 16, 16] == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("size", [24, 27, 280])
def test_parameters_that_change_nothing_give_the_plain_crop(size):
    x = images(4, 2, size)
    top, left = torch.tensor([0, 0.3, 0.6, 0.9999]), torch.tensor([0.9999, 0.5, 0, 0.2])
    got = Augment(crop=20).train(x, draws(4, top=top, left=left), (0.5, 0.4), (0.3, 0.2))
    for k in range(4):
        i, j = int(top[k] * (size - 19)), int(left[k] * (size - 19))
        plain = x[k, :, i : i + 20, j : j + 20].numpy() / 255
        plain = (plain - np.array([0.5, 0.4])[:, None, None]) / np.array([0.3, 0.2])[:, None, None]
        np.testing.assert_allclose(got[k].numpy(), plain, atol=5e-4)


def test_gamma_is_the_published_table():
    ramp = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    for gamma in (0.5, 1.5):
        got = Augment(crop=16).train(ramp, draws(gamma=gamma), *PLAIN) * 255
        table = 255 * (np.arange(256) / 255) ** (1 / gamma)
        np.testing.assert_allclose(got.flatten().numpy(), table, atol=0.02)
    assert Augment(crop=16).train(ramp, draws(gamma=1.5), *PLAIN)[0, 0, 8, 0] > 128 / 255  # above 1 brightens


def test_noise_spans_the_whole_range_and_differs_by_offset():
    black = torch.zeros(2, 1, 32, 32, dtype=torch.uint8)
    rows = draws(2, noise_gain=0.25)
    rows[1, 1] = 1000
    got = Augment(crop=32).train(black, rows, *PLAIN)
    assert got.amin((1, 2, 3)).tolist() == pytest.approx([0, 0], abs=1e-4)
    assert got.amax((1, 2, 3)).tolist() == pytest.approx([0.25, 0.25], abs=1e-4)
    assert (got[0] - got[1]).abs().max() > 0.05


def test_ranks_slices_give_the_images_of_the_whole_batch():
    a, x = Augment(crop=20), images(12)
    rows = torch.from_numpy(a.draw(seed=3, epoch=1, step=7, count=12))
    whole = a.train(x, rows, *PLAIN)
    for world in (1, 2, 3, 4, 6, 12):
        parts = [a.train(xs, rs, *PLAIN) for xs, rs in zip(x.chunk(world), rows.chunk(world), strict=True)]
        torch.testing.assert_close(torch.cat(parts), whole, atol=1e-6, rtol=0)
    order = torch.randperm(12)
    torch.testing.assert_close(a.train(x[order], rows[order], *PLAIN), whole[order], atol=1e-6, rtol=0)


@pytest.mark.parametrize(("size", "crop", "channels"), [(70, 64, 1), (64, 56, 1), (64, 64, 3), (37, 30, 2)])
@pytest.mark.parametrize("given", [{}, {"probability": 0}, {"noise": 0}, {"rotate": 0}, {"gamma": (1, 1)}])
def test_pieces_and_what_they_leave_out_change_no_bit(monkeypatch, size, crop, channels, given):
    """Against the batch in one piece that leaves nothing out: recorded runs are replayed bit for bit."""
    a, x = Augment(crop=crop, **given), images(16, channels, size)
    mean, std = (0.4, 0.5, 0.6)[:channels], (0.2, 0.25, 0.3)[:channels]
    rows = torch.from_numpy(a.draw(seed=3, epoch=1, step=7, count=16))
    got = {}
    for pixels in (1, 3 * channels * size * size, 2**40):  # one image, three, and all; 4 of them have to fit
        monkeypatch.setattr(augment, "PIECE", 4 * pixels)
        pieces = [(r, on if pixels < 2**40 else (True, True, True)) for r, on in a._pieces(x, rows)]
        monkeypatch.setattr(Augment, "_pieces", lambda self, images, draws, pieces=pieces: pieces)
        got[pixels] = len(pieces), a.train(x, rows, mean, std)
        monkeypatch.undo()
    assert [n for n, _ in got.values()] == [16, 2, 1]
    *others, (_, whole) = got.values()
    assert all(torch.equal(other, whole) for _, other in others)


def test_what_is_off_is_not_made(monkeypatch):
    """Without noise no bank of noise, without a turn no resampling where places are exact, without gamma no power."""

    def never(*_, **__):
        raise AssertionError

    monkeypatch.setattr(augment, "_noise_bank", never)
    monkeypatch.setattr(augment, "_sampled", never)
    monkeypatch.setattr(torch.Tensor, "pow_", never)
    for a in (Augment(crop=64, probability=0), Augment(crop=64, noise=0, rotate=0, gamma=(1, 1))):
        x = images(5, 3, 64)
        got = a.train(x, torch.from_numpy(a.draw(0, 1, 2, 5)), (0.0,) * 3, (1.0,) * 3)
        np.testing.assert_allclose(
            got.numpy(), x.numpy() / 255, rtol=1e-6
        )  # 0 .. 1, as fundus photographs are published


@pytest.mark.parametrize("size", [16, 32, 64, 256, 512, 70, 280, 100, 33])
def test_places_are_exact_where_the_size_is_a_power_of_two(size):
    assert augment._exact(size) == (size & (size - 1) == 0)


def test_draws_are_a_pure_function_of_their_arguments():
    a = Augment()
    first = a.draw(1, 2, 3, 8)
    np.testing.assert_array_equal(first, a.draw(1, 2, 3, 8))
    assert first.shape == (8, len(COLUMNS))
    assert first.dtype == np.float32
    for other in ((0, 2, 3, 8), (1, 0, 3, 8), (1, 2, 0, 8)):
        assert (a.draw(*other) != first).any()


def test_draws_follow_the_published_distributions():
    rows = Augment().draw(0, 0, 0, 20_000)
    gain, offset, angle, top, left, gamma = rows.T
    for on in (gain > 0, angle != 0, gamma != 1):
        assert on.mean() == pytest.approx(0.5, abs=0.02)
    assert 0.29 < gain.max() <= 0.3
    assert 9.9 < angle.max() <= 10
    assert -10 <= angle.min() < -9.9
    assert 0.5 <= gamma.min() < 0.51
    assert 1.49 < gamma.max() <= 1.5
    assert (offset == np.floor(offset)).all()
    assert offset.max() < NOISE_OFFSETS
    assert np.corrcoef(np.stack([gain > 0, angle != 0, gamma != 1, top, left]))[0, 1:] == pytest.approx(0, abs=0.03)
    starts = np.bincount(np.floor(top * 25).astype(int), minlength=25)
    assert len(starts) == 25  # 280 - 256 + 1 places
    assert starts.min() > 650


def test_switched_off_it_draws_what_changes_nothing():
    rows = Augment(probability=0).draw(0, 0, 0, 5)
    assert (rows[:, [0, 2, 5]] == [0, 0, 1]).all()


def test_evaluation_is_the_centre_crop():
    x = images(2, 2, 25)
    got = Augment(crop=20).evaluate(x, (0.5, 0.25), (0.25, 0.5))
    plain = x[:, :, 2:22, 2:22].numpy() / 255
    np.testing.assert_allclose(got[:, 0].numpy(), (plain[:, 0] - 0.5) / 0.25, atol=1e-5)
    np.testing.assert_allclose(got[:, 1].numpy(), (plain[:, 1] - 0.25) / 0.5, atol=1e-5)
    assert got.dtype == torch.float32


def test_it_is_a_value():
    a = Augment(crop=56, gamma=[0.5, 1])
    assert from_json(to_json(a)) == a
    assert fingerprint(a) == fingerprint(Augment(crop=56, gamma=(0.5, 1.0)))
    with pytest.raises(AttributeError):
        a.crop = 3


@pytest.mark.parametrize(
    "wrong",
    [
        {"crop": 0},
        {"probability": 1.5},
        {"noise": -0.1},
        {"rotate": 200.0},
        {"gamma": (0.0, 1.0)},
        {"gamma": (2.0, 1.0)},
    ],
)
def test_refusals(wrong):
    with pytest.raises(InputError, match=f"Augment.{next(iter(wrong))}"):
        Augment(**wrong)


def test_images_smaller_than_the_crop_are_refused():
    with pytest.raises(InputError, match="crop is 25, but the images are 24 x 24"):
        Augment(crop=25).train(images(1), draws(), *PLAIN)
    with pytest.raises(InputError, match="at a larger size"):
        Augment(crop=25).evaluate(images(1), *PLAIN)
