"""A dataset to which images are added is the one that would be prepared anew, with the pseudonyms it had."""

import json

import pytest

from marginlab.data.adding import become, restore
from marginlab.data.packed import PackedDataset
from marginlab.values import InputError
from tests.data.listed import content, decoded, packed, people, write


@pytest.fixture
def raw(tmp_path):
    return write(tmp_path / "raw", *people(0, 20))


@pytest.fixture
def out(raw, tmp_path):
    return packed(raw, tmp_path / "out").folder


def fresh(raw):
    return content(packed(raw, raw.with_name("fresh")).folder)


def test_only_new_and_changed_files_are_decoded(raw, out, tmp_path):
    before = PackedDataset.open(out)
    write(raw, *people(20, 24))
    write(raw, "a001", months=(24,))
    write(raw, "a003", months=(12,))  # written again
    with decoded() as paths:
        after = packed(raw, out, extend=True)
    assert paths == sorted([*(f"{s}_{m}.png" for s in people(20, 24) for m in (0, 12)), "a001_24.png", "a003_12.png"])
    assert len(after.pixels) == 49 and after.fingerprint != before.fingerprint
    assert set(before.manifest["subject"]) < set(after.manifest["subject"])
    assert content(out) == fresh(raw)
    assert sorted(p.name for p in tmp_path.iterdir() if p.name.startswith(".out")) == [".out.lock"]
    with pytest.raises(InputError, match="but the run was made for"):
        after.require(before.fingerprint)
    assert len(before.pixels) == 40 and before.pixels[39].any()  # whoever has it open goes on


def test_with_nothing_new_it_is_the_same(raw, out):
    before = content(out)
    with decoded() as paths:
        packed(raw, out, extend=True)
    assert not paths and content(out) == before


def test_damaged_pixels_are_not_taken_over(raw, out):
    with open(out / "images.npy", "r+b") as file:
        file.seek(-64 * 3, 2)
        file.write(b"damaged")
    write(raw, "a100")
    with decoded() as paths:
        packed(raw, out, extend=True)
    assert len(paths) == 3
    assert content(out) == fresh(raw)


def test_a_dataset_of_before_images_had_keys(raw, out, private_home):
    file = private_home / f"{PackedDataset.open(out).fingerprint}.json"
    kept = json.loads(file.read_text())
    file.write_text(json.dumps({k: v for k, v in kept.items() if k not in ("keys", "crc")}))
    subjects = set(PackedDataset.open(out).manifest["subject"])
    write(raw, "a100")
    with decoded() as paths:
        after = packed(raw, out, extend=True)
    assert len(paths) == 42 and subjects < set(after.manifest["subject"])
    assert content(out) == fresh(raw)


def test_what_cannot_be_added_to(raw, out, private_home):
    before = content(out)
    with pytest.raises(InputError, match=r"out: something is there already; add new images to it with extend"):
        packed(raw, out)
    for keywords, sentence in (
        ({"size": 4}, "the size of this dataset is 8, not 4"),
        ({"name": "yours"}, "the name of this dataset is 'mine', not 'yours'"),
        ({"private": private_home.with_name("other")}, r"\.json: the private file of this dataset is not there"),
    ):
        with pytest.raises(InputError, match=sentence):
            packed(raw, out, extend=True, **keywords)
    (raw / "a001_0.png").unlink()
    with pytest.raises(InputError, match=r"1 images of this dataset are no longer .* \(a001_0\.png first\)"):
        packed(raw, out, extend=True)
    assert content(out) == before
    (raw.parent / "mine").mkdir()
    (raw.parent / "mine" / "thesis.tex").write_text("precious")
    with pytest.raises(InputError, match="so this is no packed dataset"):
        packed(raw, raw.parent / "mine", extend=True)
    assert (raw.parent / "mine" / "thesis.tex").read_text() == "precious"


def test_a_kill_between_the_two_renames_loses_nothing(tmp_path):
    out, new, aside = tmp_path / "out", tmp_path / "new", tmp_path / ".out.before"
    for folder in (out, new):
        folder.mkdir()
        (folder / "name").write_text(folder.name)
    out.rename(aside)  # killed here
    restore(out)
    assert (out / "name").read_text() == "out" and not aside.exists()
    become(new, out)
    assert (out / "name").read_text() == "new" and not aside.exists()
    aside.mkdir()  # killed before it was removed
    restore(out)
    assert (out / "name").read_text() == "new" and not aside.exists()
