"""Batches are the pixels of their positions whatever way they come. What a GPU adds is run where there is one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from marginlab.data import feeding
from marginlab.data.feeding import Feed
from marginlab.data.subset import Subset
from marginlab.values import InputError

CPU = torch.device("cpu")
NEEDS_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def subset(folder: Path, n: int = 50, channels: int = 2, size: int = 9) -> Subset:
    """30 images of a store of n, in no order, memory-mapped as a packed dataset has them."""
    rng = np.random.default_rng(1)
    np.save(folder / "images.npy", rng.integers(0, 256, (n, channels, size, size), dtype=np.uint8))
    rows = rng.permutation(n)[:30]
    zero, no = np.zeros(30, np.int64), np.zeros(30, bool)
    return Subset(np.load(folder / "images.npy", mmap_mode="r"), rows, zero, zero, zero.astype(np.float32), no, no)


def plan() -> list[np.ndarray]:
    rng = np.random.default_rng(2)
    return [rng.integers(0, 30, k) for k in (8, 8, 8, 3)]  # with repetitions, and a last batch that is not full


def plainly(s: Subset) -> list[np.ndarray]:
    return [np.stack([s.pixels[s.rows[p]] for p in positions]) for positions in plan()]


def fed(feed: Feed) -> list[np.ndarray]:
    return [b.cpu().numpy().copy() for b in feed.batches(plan())]


def test_batches_are_the_pixels_of_their_positions(tmp_path: Path) -> None:
    s = subset(tmp_path)
    for cache in feeding.CACHES:
        feed = Feed(s, CPU, cache)
        assert feed.kept is None  # the page cache is a CPU's own
        for got, expected in zip(fed(feed), plainly(s), strict=True):
            np.testing.assert_array_equal(got, expected)
    assert all(b.dtype == torch.uint8 for b in Feed(s, CPU).batches(plan()))


def test_an_epochs_plan_is_a_matrix(tmp_path: Path) -> None:
    s, matrix = subset(tmp_path), np.arange(12).reshape(3, 4)
    for got, positions in zip(Feed(s, CPU).batches(matrix), matrix, strict=True):
        np.testing.assert_array_equal(got.numpy(), s.pixels[s.rows[positions]])
    assert list(Feed(s, CPU).batches(matrix[:0])) == []


@pytest.mark.parametrize(("free", "kept"), [(2 * 30 * 162, True), (2 * 30 * 162 - 1, False), (0, False)])
def test_a_subset_moves_to_the_device_where_it_fills_at_most_half_of_what_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, kept: bool
) -> None:
    s = subset(tmp_path)
    monkeypatch.setattr(feeding, "free_bytes", lambda device: free)
    monkeypatch.setattr(feeding, "PIECE", 7 * 162)  # it moves in pieces of seven images, and a rest
    feed = Feed(s, CPU)
    assert feed.bytes == 30 * 162 and (feed.kept is not None) == kept
    assert Feed(s, CPU, "host").kept is None
    for got, expected in zip(fed(feed), plainly(s), strict=True):
        np.testing.assert_array_equal(got, expected)
    if feed.kept is not None:
        np.testing.assert_array_equal(feed.kept.numpy(), s.pixels[s.rows])


def test_an_empty_subset_has_no_batches(tmp_path: Path) -> None:
    s = subset(tmp_path)
    empty = Subset(s.pixels, s.rows[:0], *(getattr(s, k)[:0] for k in ("label", "visit", "months", "gallery", "query")))
    assert list(Feed(empty, CPU).batches([])) == []


def test_refusals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    s = subset(tmp_path)
    with pytest.raises(InputError, match="must be one of 'auto', 'device', 'host', not 'gpu'"):
        Feed(s, CPU, "gpu")
    with pytest.raises(InputError, match="A subset names image 50, but there are 50"):
        Feed(Subset(s.pixels, s.rows * 0 + 50, s.label, s.visit, s.months, s.gallery, s.query), CPU)
    monkeypatch.setattr(feeding, "free_bytes", lambda device: 10**9)
    with pytest.raises(InputError, match=r"asks for 2.0 GB on a GPU that has 1.0 GB free: say cache='auto'"):
        feeding._keeps(2 * 10**9, torch.device("cuda"), "device")


@NEEDS_GPU
@pytest.mark.parametrize("cache", ["device", "host"])
def test_a_gpu_gets_the_same_batches_while_it_is_at_work(tmp_path: Path, cache: str) -> None:
    s, device = subset(tmp_path, size=200), torch.device("cuda")
    many = np.random.default_rng(3).integers(0, 30, (40, 16))
    work = torch.rand(2000, 2000, device=device)
    got = []
    for batch in Feed(s, device, cache).batches(many):
        work = work @ work / 1000  # the device is behind the host all the time
        got.append(batch + 0)
    for one, positions in zip(got, many, strict=True):
        np.testing.assert_array_equal(one.cpu().numpy(), s.pixels[s.rows[positions]])
