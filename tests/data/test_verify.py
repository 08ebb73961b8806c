"""``verify`` finds what is not as it was prepared, and names it."""

import json
import shutil

import numpy as np
import polars as pl
import pytest
from PIL import Image

from marginlab.data.verify import verify
from marginlab.values import InputError
from tests.data.listed import info, packed, people, write


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepared")
    packed(write(folder / "raw", *people(0, 20)), folder / "out", private=folder / "private")
    return folder


@pytest.fixture
def out(prepared, tmp_path, private_home):
    """A copy that may be damaged."""
    shutil.copytree(prepared / "private", private_home)
    return shutil.copytree(prepared / "out", tmp_path / "out")


def rewrite(folder, **fields):
    (folder / "dataset.json").write_text(json.dumps({**info(folder), **fields}))


def scribble(folder, row=5):
    with open(folder / "images.npy", "r+b") as file:
        file.seek(-(40 - row) * 64, 2)
        file.write(b"scribble")


def test_a_dataset_as_it_was_prepared(out):
    seen = []
    found = verify(out, progress=lambda done, total: seen.append((done, total)))
    assert found.summed and found.warnings == () and seen == [(40, 40)]
    assert found.dataset.folder == out
    kept = info(out)
    del kept["checks"]  # as datasets of before
    (out / "dataset.json").write_text(json.dumps(kept))
    assert not verify(out).summed


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (scribble, r"images\.npy: the pixels of rows 0 to 39 are not those that were prepared"),
        (lambda f: (f / "images.npy").open("ab").write(b"x"), r"images\.npy: the file has 2689 bytes instead of 2688"),
        (lambda f: (f / "report.json").write_text("{}"), r"report\.json: the file is damaged"),
        (lambda f: (f / "report.json").unlink(), r"the file report\.json is missing"),
        (lambda f: rewrite(f, mean=[0.5, 0.5]), "mean must be 1 numbers, one per channel"),
        (lambda f: rewrite(f, std=[0.0]), "std must be above 0"),
        (lambda f: rewrite(f, fingerprint="0" * 16), "but dataset.json says 0000000000000000: a file was changed"),
        (lambda f: rewrite(f, checks={"rows": 1, "images": [], "manifest": ""}), "not those of this dataset"),
    ],
)
def test_damage_is_named(out, damage, sentence):
    damage(out)
    with pytest.raises(InputError, match=sentence):
        verify(out)


def test_the_fingerprint_finds_damage_where_there_are_no_check_sums(out):
    rewrite(out, checks=None)
    scribble(out)
    with pytest.raises(InputError, match="the content has the fingerprint"):
        verify(out)


def test_a_column_that_the_fingerprint_leaves_out(out):
    rows = pl.read_parquet(out / "manifest.parquet")
    rows.with_columns(age=pl.lit(60.0, pl.Float32)).write_parquet(out / "manifest.parquet")
    with pytest.raises(InputError, match=r"manifest\.parquet: the table is not the one that was prepared"):
        verify(out)


def test_counts_that_do_not_fit(out):
    report = json.loads((out / "report.json").read_text())
    (out / "report.json").write_text(json.dumps({**report, "records": 41}))
    with pytest.raises(InputError, match="of 41 records 0 were left out and 40 kept, but the dataset has 40 images"):
        verify(out)


def test_what_a_person_should_look_at(tmp_path, private_home):
    raw = write(tmp_path / "raw", *people(0, 20))
    (raw / "a002_0.png").write_bytes(b"")
    Image.fromarray(np.full((8, 8), 7, np.uint8)).save(raw / "a003_0.png")
    (raw / "t004_0.png").write_bytes((raw / "a001_0.png").read_bytes())
    (raw / "a006_0.png").write_bytes((raw / "a006_12.png").read_bytes())
    out = packed(raw, tmp_path / "out", unreadable_limit=0.1).folder
    (private_home / f"{info(out)['fingerprint']}.json").unlink()
    lost, flat, same, private = verify(out).warnings
    assert lost == "1 of 40 images could not be read and were left out (report.json)."
    assert flat.startswith("1 image is of a single colour (row ")
    assert same.startswith("4 images are pixel for pixel the same as another one (rows ")
    assert "; 1 such groups are of more than one subject; 1 ARE IN BOTH SPLITS (rows " in same
    assert private.startswith("There is no private file ")
