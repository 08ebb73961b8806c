"""The fundus phantom as files: what the reader of the real data makes of them."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from marginlab.data.eyepacs import EyePACS
from marginlab.data.phantom import EyePacsPhantom, phantom_of, write
from marginlab.data.phantom.eye import eyes
from marginlab.data.phantom.layout_eyepacs import SIDES, identifier, images_of, pictures
from marginlab.data.store import prepare

PHANTOM = EyePacsPhantom(subjects=50, size=40, seed=5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("eyepacs") / "raw"
    told: list[tuple[int, int]] = []
    write(PHANTOM, out, progress=lambda done, total: told.append((done, total)))
    assert told[-1] == (PHANTOM.subjects, PHANTOM.subjects)
    return out


def test_the_table_has_the_real_header_and_a_row_per_image(folder: Path) -> None:
    assert (folder / "trainLabels.csv").read_text().splitlines()[0] == "image,level"
    rows = pl.read_csv(folder / "trainLabels.csv")
    assert {f"{name}.jpeg" for name in rows["image"]} == {f.name for f in (folder / "train").iterdir()}
    assert all(re.fullmatch(r"\d+_(left|right)", name) for name in rows["image"])
    assert rows["image"].n_unique() == len(rows) == 100
    assert set(rows["level"]) == {0, 1, 2, 3, 4}
    assert phantom_of(folder) == "EyePacsPhantom v1"


def test_the_reader_accepts_every_image_and_tests_on_a_fifth_of_the_patients(folder: Path) -> None:
    raw = EyePACS().read(folder)
    assert raw.problems == () and len(raw.rows) == 100
    test = set(raw.rows.filter(split="test")["subject"])
    assert test == {identifier(PHANTOM, i) for i in range(50) if images_of(PHANTOM, i)[0]} and len(test) == 10
    grades = {(s, side): g for s, side, g in raw.rows.select("subject", "side", "grade").iter_rows()}
    for i in (0, 7, 49):
        both = eyes(1, 5, i)
        assert [grades[identifier(PHANTOM, i), side[0].upper()] for side in SIDES] == [both[s].grade for s in SIDES]


def test_files_hold_the_pictures(folder: Path) -> None:
    for side, pixels in zip(SIDES, pictures(PHANTOM, 3, eyes(1, 5, 3)), strict=True):
        with Image.open(folder / "train" / f"{identifier(PHANTOM, 3)}_{side}.jpeg") as image:
            assert (image.format, image.mode) == ("JPEG", "RGB")
            assert np.abs(np.asarray(image).astype(int) - pixels).mean() < 3  # what compression changes


def test_a_patient_does_not_depend_on_the_others(folder: Path, tmp_path: Path) -> None:
    write(EyePacsPhantom(subjects=2, size=40, seed=5), tmp_path)
    files = sorted((tmp_path / "train").iterdir())
    assert len(files) == 4
    for file in files:
        assert file.read_bytes() == (folder / "train" / file.name).read_bytes()


def test_from_phantom_to_packed_dataset(folder: Path, tmp_path: Path) -> None:
    packed = prepare(EyePACS(), folder, tmp_path / "out", name="eyepacs", size=36, private=tmp_path / "private")
    assert packed.pixels.shape == (100, 3, 36, 36) and packed.phantom == "EyePacsPhantom v1"
    assert sorted(packed.manifest["grade"].unique()) == [0, 1, 2, 3, 4]
    left = packed.manifest.filter(side="L")["row"].to_numpy()
    assert packed.pixels[left, 1].mean(0)[:, :18].max() > packed.pixels[left, 1].mean(0)[:, 18:].max()  # the disc
    assert packed.pixels[:, 0, 2:34, 17].min() > 16 and packed.pixels[:, 0, 17, 1:35].min() > 16  # borders are gone
    assert packed.pixels[:, :, 0, 0].max() < 40  # and corners are black
    assert (len(packed.fold(0).validation), len(packed.test())) == (16, 20)
