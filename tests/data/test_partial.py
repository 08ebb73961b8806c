"""What was decoded before ``prepare`` was stopped is not decoded again, and the end is as if nothing had happened."""

import os
import shutil
from collections import namedtuple

import numpy as np
import pytest

from marginlab import lock
from marginlab.data import partial, store
from marginlab.data.partial import CHUNK
from marginlab.values import InputError
from tests.data.listed import content, decoded, packed, people, stop, write

IMAGES = 40
STOPPED = 20  # images: in the second chunk
SECRET = bytes(32)
KEPT = 2 * CHUNK  # it was written when that was said


@pytest.fixture
def raw(tmp_path):
    return write(tmp_path / "raw", *people(0, 20))


@pytest.fixture
def out(raw, tmp_path):
    """Where a ``prepare`` was stopped."""
    with pytest.raises(KeyboardInterrupt):
        packed(raw, tmp_path / "out", progress=stop(STOPPED))
    assert not (tmp_path / "out").exists()
    return tmp_path / "out"


def begun(out):
    (folder,) = (p for p in out.with_name(".out.partial").iterdir())
    return folder


def fresh(raw):
    """Prepared without a disturbance."""
    return content(packed(raw, raw.with_name("fresh")).folder)


def test_it_carries_on_and_ends_with_the_same_bytes(raw, out):
    seen = []
    with decoded() as paths:
        packed(raw, out, progress=lambda done, total: seen.append((done, total)))
    assert paths == sorted(p.name for p in raw.iterdir())[KEPT:]
    assert seen == [(i, IMAGES) for i in range(KEPT, IMAGES + 1)]
    assert content(out) == fresh(raw)
    assert not out.with_name(".out.partial").exists()


def test_stopped_with_processes_at_work(raw, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        packed(raw, tmp_path / "out", progress=stop(1), workers=2)
    with decoded() as paths:
        packed(raw, tmp_path / "out")
    assert len(paths) <= IMAGES - 8  # the last chunk is a short one
    assert content(tmp_path / "out") == fresh(raw)


def test_files_that_changed_appeared_or_vanished_meanwhile(raw, out):
    write(raw, "a001", "a100", months=(7,))
    os.utime(raw / "t000_0.png", ns=(0, 0))  # its bytes are not compared
    (raw / "a002_0.png").unlink()
    with decoded() as paths:
        packed(raw, out)
    assert paths == sorted(
        ["t000_0.png", "a001_7.png", "a100_7.png", *sorted(p for p in fresh_names(20) if p >= cut())]
    )
    assert content(out) == fresh(raw)


def fresh_names(subjects):
    return sorted(f"{s}_{m}.png" for s in people(0, subjects) for m in (0, 12))


def cut():
    """The first file that was not decoded before."""
    return fresh_names(20)[KEPT]


def test_an_image_that_could_not_be_read_is_tried_again(raw, tmp_path):
    lost = raw / "t000_0.png"
    content_of_it = lost.read_bytes()
    lost.write_bytes(b"")
    with pytest.raises(InputError, match="the file is empty"):
        packed(raw, tmp_path / "out")
    lost.write_bytes(content_of_it)
    with decoded() as paths:
        packed(raw, tmp_path / "out")
    assert set(paths[:1]) <= {lost.name} and len(paths) < IMAGES
    assert content(tmp_path / "out") == fresh(raw)


def test_another_limit_is_another_dataset_that_carries_on_all_the_same(raw, tmp_path):
    (raw / "t016_0.png").write_bytes(b"")
    with pytest.raises(InputError, match="more than the limit"):
        packed(raw, tmp_path / "one")
    with decoded() as paths:
        packed(raw, tmp_path / "two", unreadable_limit=0.1)
    assert paths == ["t016_0.png"]
    assert sorted(p.name for p in tmp_path.iterdir() if p.is_dir()) == ["home", "raw", "two"]


def test_left_out_images_leave_no_gap(raw, out):
    (raw / "a001_0.png").write_bytes(b"broken")  # decoded before: it is another file now
    (raw / "t016_12.png").write_bytes(b"")
    packed(raw, out, unreadable_limit=0.1)
    again = packed(raw, out.with_name("fresh"), unreadable_limit=0.1)
    assert content(out) == content(again.folder) and len(again.pixels) == IMAGES - 2


@pytest.mark.parametrize("cut", [20, 10_000])
def test_a_log_that_is_cut_short(raw, out, cut):
    log = begun(out) / "done.log"
    log.write_bytes(log.read_bytes()[:-cut])
    with pytest.raises(KeyboardInterrupt):
        packed(raw, out, progress=stop(IMAGES - 1))
    packed(raw, out)
    assert content(out) == fresh(raw)


def test_pixels_that_did_not_reach_the_disk(raw, out):
    with open(begun(out) / "images.npy", "r+b") as file:
        file.seek(-(IMAGES - 5) * 64, os.SEEK_END)
        file.write(bytes(64))
    with decoded() as paths:
        packed(raw, out)
    assert fresh_names(20)[5] in paths and len(paths) == IMAGES - KEPT + 1
    assert content(out) == fresh(raw)


def test_stopped_when_all_is_decoded(raw, out, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    for name in ("_write_json", "_sync", "write_private", "become"):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(store, name, interrupted)
            packed(raw, out)
    with decoded() as paths:
        packed(raw, out)
    assert not paths
    assert content(out) == fresh(raw)


def test_another_size_begins_anew(raw, out):
    with decoded() as paths:
        packed(raw, out, size=4)
    assert len(paths) == IMAGES


def test_two_at_once(raw, tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "_LOOKS", 1)

    def second(done, total):
        if done == 1:
            with pytest.raises(
                InputError, match=r"out: this dataset is being prepared already, held by process \d+ on"
            ):
                packed(raw, tmp_path / "out")

    assert len(packed(raw, tmp_path / "out", progress=second).pixels) == IMAGES


def test_a_disk_that_is_too_small_is_said_before(raw, tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**9, 10**9, 100))
    with pytest.raises(InputError, match=r"40 images take 0\.0 GB and 0\.0 GB are free; make room"):
        packed(raw, tmp_path / "out")


def test_keys_tell_what_decides_the_pixels(raw, tmp_path):
    decoder = store.Decoder(raw, 8, 1, None)
    tasks = [("t000_0.png", False), ("t000_12.png", False), ("t000_0.png", True), ("nowhere", False)]
    keys = partial.keys_of(decoder, tasks, SECRET)
    assert len(set(keys)) == 4
    assert keys == partial.keys_of(store.Decoder(raw, 8, 1, None), tasks, SECRET)
    for other in (store.Decoder(raw, 9, 1, None), store.Decoder(raw, 8, 3, None), store.Decoder(raw, 8, 1, 4)):
        assert set(keys).isdisjoint(partial.keys_of(other, tasks, SECRET))
    moved = raw.rename(tmp_path / "moved")
    assert keys == partial.keys_of(store.Decoder(moved, 8, 1, None), tasks, SECRET)
    assert np.unique([len(k) for k in keys]).tolist() == [partial.KEY]
    assert set(keys).isdisjoint(partial.keys_of(store.Decoder(moved, 8, 1, None), tasks, bytes([1]) * 32))
