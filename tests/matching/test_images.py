"""What a user names is found, and read bit for bit as ``prepare`` reads it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from marginlab.matching.images import decoded, listed
from marginlab.matching.model import Embedder
from marginlab.values import InputError


@pytest.fixture
def config(made):
    return Embedder.open(made.model).config


def test_a_list_with_sides_gives_the_pixels_of_the_packed_dataset(made, pictures, config, tmp_path):
    assert config["mirrored"] == ["R"] and config["crop"] == 38
    lines = ["\ufefffile,side,note", *(f"{p},{p.stem[-1].lower()},x" for p in pictures)]
    (tmp_path / "all.csv").write_text("\r\n".join(lines) + "\n")
    given = listed(str(tmp_path / "all.csv"), config)
    assert given.unsided == 0 and [p.name for p in given.items] == list(map(str, pictures))
    images = [image for block in decoded(given.items, config) for image in block]
    assert np.array_equal(np.stack(images), np.array(made.dataset.pixels))


def test_dark_borders_are_cut_off_where_prepare_cut_them_off(tmp_path, config):
    """A grey square in a black frame fills the image of a model that was trained without borders, and of no other."""
    frame = np.zeros((60, 80), dtype=np.uint8)
    frame[10:50, 20:60] = 90
    Image.fromarray(frame).save(tmp_path / "eye.png")
    given = listed(str(tmp_path / "eye.png"), config).items
    for trim in (True, False):
        (block,) = decoded(given, {**config, "crop": None, "trim": trim})
        assert (block[0] == 90).all() == trim


def test_processes_decode_the_same_in_the_same_order(made, config):
    given = listed(str(made.raw / "ResizedImages"), config)
    here = [image for block in decoded(given.items, config, workers=1) for image in block]
    there = [image for block in decoded(given.items, config, workers=2) for image in block]
    assert len(here) == len(made.dataset.pixels) and np.array_equal(np.stack(here), np.stack(there))


def test_folders_are_searched_and_names_are_as_given(tmp_path, config, monkeypatch):
    monkeypatch.chdir(tmp_path)
    picture = Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8))
    for name in ("in/b.PNG", "in/deep/er/a.jpg", "in/c.tif", "in/.hidden/d.png", "in/._b.png"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        picture.convert("RGB" if name.endswith("jpg") else "L").save(name)
    Path("in/notes.txt").write_text("no image")
    Path("in/scan.dcm").write_bytes(b"\0" * 128 + b"DICM")
    found = listed("in", config)
    assert [p.name for p in found.items] == ["in/b.PNG", "in/c.tif", "in/deep/er/a.jpg", "in/scan.dcm"]
    assert found.unsided == 4 and listed("in", config, flip=True).unsided == 0
    ((*images, reason),) = decoded(found.items, config)
    assert all(image.shape == (1, 36, 36) for image in images) and reason == "the DICOM file holds no image"
    (one,) = listed("in/b.PNG", config, flip=True).items
    assert (one.name, one.path, one.flip) == ("in/b.PNG", tmp_path / "in/b.PNG", True)
    Path("in/list.txt").write_text("b.PNG\n\ndeep/er/a.jpg\n")
    assert [p.path for p in listed("in/list.txt", config).items] == [
        tmp_path / "in/b.PNG",
        tmp_path / "in/deep/er/a.jpg",
    ]


def test_a_list_may_say_flip_and_the_option_is_for_the_others(tmp_path, config):
    (tmp_path / "l.csv").write_text("file,side,flip\na.png,R,\nb.png,R,no\nc.png,,yes\nd.png,L,\ne.png,,\n")
    assert [p.flip for p in listed(str(tmp_path / "l.csv"), config).items] == [True, False, True, False, False]
    assert listed(str(tmp_path / "l.csv"), config).unsided == 1
    assert [p.flip for p in listed(str(tmp_path / "l.csv"), config, flip=True).items] == [
        True,
        False,
        True,
        False,
        True,
    ]
    chest = {**config, "mirrored": []}
    assert not any(p.flip for p in listed(str(tmp_path / "l.csv"), chest).items[:2])
    assert listed(str(tmp_path / "l.csv"), chest).unsided == 0


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("l.csv", "path\na.png\n", "the column 'file' is missing"),
        ("l.csv", "file,side\na.png,X\n", "image 1: side must be L or R, not 'X'"),
        ("l.csv", "file,flip\na.png,maybe\n", "image 1: flip must be true or false"),
        ("l.txt", "\n", "names no image"),
        ("l.csv", "", "the column 'file' is missing"),
    ],
)
def test_what_is_wrong_with_a_list_is_said(tmp_path, config, name, text, says):
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=says):
        listed(str(tmp_path / name), config)


def test_what_is_not_there_is_said(tmp_path, config):
    with pytest.raises(InputError, match="there is no such folder or file"):
        listed(str(tmp_path / "x"), config)
    with pytest.raises(InputError, match="holds no image"):
        listed(str(tmp_path), config)
    (tmp_path / "l.csv").write_text("file,side\na.png,R\n")
    with pytest.raises(InputError, match="use the column flip instead of side"):
        listed(str(tmp_path / "l.csv"), {**config, "mirrored": None})
