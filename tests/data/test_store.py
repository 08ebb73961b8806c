import json
import os
import signal
import subprocess
import sys
import textwrap

import numpy as np
import polars as pl
import pytest
from PIL import Image

from marginlab.data.oai import OAI
from marginlab.data.raw import Problem, RawTable
from marginlab.data.store import prepare
from marginlab.values import InputError, value

LONG = {f"SUBJECT-{i:02}-4f9c1d7ab2e86035": "ABDECCABCE"[i] for i in range(10)}  # long enough not to occur by chance


def packed(root, out, **keywords):
    return prepare(OAI(), root, out, **{"name": "knees", "size": 16, "crop": 0, **keywords})


def images(root):
    return sorted((root / "ResizedImages").iterdir())


def test_what_is_packed(oai_folder, tmp_path):
    root = oai_folder()
    dataset = packed(root, tmp_path / "out", phantom="3")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "dataset.json",
        "images.npy",
        "manifest.parquet",
        "report.html",
        "report.json",
    ]
    assert dataset.pixels.shape == (40, 1, 16, 16)
    assert isinstance(dataset.pixels, np.memmap) and not dataset.pixels.flags.writeable
    rows = dataset.manifest.to_dicts()
    for row, file in zip(rows, images(root), strict=True):
        grey = np.asarray(Image.open(file).resize((16, 16), Image.Resampling.BILINEAR))
        right = file.stem.endswith("R")
        assert np.array_equal(dataset.pixels[row["row"], 0], grey[:, ::-1] if right else grey)
        assert row["side"] == ("R" if right else "L")
        assert row["months"] == int(file.stem.split("_")[1])
        assert row["role"] == ("gallery" if row["months"] == 0 else "query")
        assert row["age"] == 60 + row["months"] / 12
        assert (row["split"] == "test") == (row["site"] == "C")
        assert row["grade"] == 2 and row["label"] == row["subject"]
    info = json.loads((tmp_path / "out" / "dataset.json").read_text())
    assert info["name"] == "knees" and info["reader"] == "marginlab.data.oai:OAI" and info["phantom"] == "3"
    assert info["mean"] == [0.49961] and info["std"] == [0.30885] and info["images"] == 40
    assert info["mirrored"] == ["R"] and info["crop"] is None


def test_the_private_file_leads_back_from_rows_to_files(oai_folder, tmp_path, private_home):
    root = oai_folder()
    dataset = packed(root, tmp_path / "out")
    private = json.loads((private_home / f"{dataset.fingerprint}.json").read_text())
    assert private["root"] == str(root)
    assert private["files"] == [f"ResizedImages/{p.name}" for p in images(root)]
    assert private["subjects"] == [p.name.split("_")[0] for p in images(root)]


def test_no_identifier_leaves_for_the_packed_folder(oai_folder, tmp_path):
    root = oai_folder(subjects=LONG)
    images(root)[0].write_bytes(b"broken")
    (root / "ResizedImages" / "SUBJECT-99-4f9c1d7ab2e86035_18_L.png").write_bytes(b"unused")
    for label in ("subject", "subject-side"):
        dataset = packed(root, tmp_path / label, label=label, unreadable_limit=0.1)
        secrets = ["SUBJECT", "4f9c1d7ab2e86035", "ResizedImages", str(root)]
        for file in (tmp_path / label).iterdir():
            for secret in secrets:
                assert secret.encode() not in file.read_bytes()
        cells = " ".join(str(v) for row in dataset.manifest.iter_rows() for v in row)
        assert not any(secret in cells for secret in secrets)
        assert not any(secret in repr(dataset.describe()) for secret in secrets)


def test_prepared_again_it_is_the_same(oai_folder, tmp_path):
    root = oai_folder()
    one, two = packed(root, tmp_path / "one"), packed(root, tmp_path / "two")
    other_key = packed(root, tmp_path / "three", private=tmp_path / "elsewhere")
    assert one.fingerprint == two.fingerprint == other_key.fingerprint
    assert one.manifest.equals(two.manifest)  # the key of the first was found again
    assert set(one.manifest["subject"]).isdisjoint(other_key.manifest["subject"])
    assert one.manifest.drop("subject", "label").equals(other_key.manifest.drop("subject", "label"))
    for name in ("images.npy", "report.json", "dataset.json", "report.html"):
        assert (one.folder / name).read_bytes() == (other_key.folder / name).read_bytes()


def test_other_names_for_the_same_people_change_nothing_but_pseudonyms(oai_folder, tmp_path):
    numbers, words = oai_folder("numbers"), oai_folder("words", subjects=LONG)
    assert packed(numbers, tmp_path / "one").fingerprint == packed(words, tmp_path / "two").fingerprint


def test_one_pixel_changes_the_fingerprint(oai_folder, tmp_path):
    root = oai_folder()
    before = packed(root, tmp_path / "one", size=20).fingerprint
    pixels = np.array(Image.open(images(root)[5]))
    pixels[10, 10] ^= 128
    Image.fromarray(pixels).save(images(root)[5])
    assert packed(root, tmp_path / "two", size=20).fingerprint != before


def test_decoding_processes_change_nothing(oai_folder, tmp_path):
    root, seen = oai_folder(), []
    one = packed(root, tmp_path / "one")
    two = packed(root, tmp_path / "two", workers=2, progress=lambda done, total: seen.append((done, total)))
    assert one.fingerprint == two.fingerprint
    assert seen == [(i, 40) for i in range(1, 41)]


def test_unreadable_images_are_reported_and_left_out(oai_folder, tmp_path, private_home):
    root = oai_folder()
    first, seventh = images(root)[0], images(root)[7]
    first.write_bytes(b"")
    seventh.write_bytes(b"no image")
    dataset = packed(root, tmp_path / "out", unreadable_limit=0.05)
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["records"] == 40 and report["images"] == len(dataset.manifest) == len(dataset.pixels) == 38
    assert report["unreadable"] == [
        {"record": 0, "reason": "the file is empty"},
        {"record": 7, "reason": "the file is no PNG, JPEG, TIFF or DICOM image"},
    ]
    private = json.loads((private_home / f"{dataset.fingerprint}.json").read_text())
    assert list(private["unreadable"]) == [f"ResizedImages/{p.name}" for p in (first, seventh)]
    whole = packed(oai_folder("undamaged"), tmp_path / "whole")
    kept = [i for i in range(40) if i not in (0, 7)]
    assert np.array_equal(dataset.pixels, whole.pixels[kept])  # the rows after a gap are where the manifest says
    assert dataset.manifest["fold"].equals(whole.manifest["fold"][kept])  # a lost image moves nobody to another fold


def test_too_many_unreadable_images(oai_folder, tmp_path):
    root = oai_folder()
    images(root)[3].write_bytes(b"")
    with pytest.raises(
        InputError, match=r"1 of 40 images cannot be read, more than the limit of 1\.00% \(ResizedImages"
    ):
        packed(root, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@value
class MyReader:
    """A user's reader: any table whose columns are those of a raw record."""

    rows: tuple = ()

    def read(self, root):
        rows = pl.DataFrame(list(self.rows), ["path", "subject", "split"], orient="row")
        return RawTable(
            rows, (Problem("1 of something.", ("secret.png",)),), channels=3, mean=(0.1, 0.2, 0.3), std=(1, 1, 1)
        )


def mine(*more):
    return MyReader((*((f"{s}.png", s, "test" if s == "f" else "train") for s in "abcdef"), *more))


def own_images(tmp_path):
    root = tmp_path / "raw"
    root.mkdir(parents=True)
    for i, s in enumerate("abcdefg"):
        Image.new("RGB", (4, 4), (i, 100, 200)).save(root / f"{s}.png")
    return root


def test_a_users_own_reader(tmp_path):
    dataset = prepare(mine(), own_images(tmp_path), tmp_path / "out", name="mine", size=4)
    assert dataset.pixels.shape == (6, 3, 4, 4)
    assert dataset.pixels[:, :, 0, 0].tolist() == [[i, 100, 200] for i in range(6)]
    assert set(dataset.manifest["role"]) == {"other"}  # no months: the reader would have to say
    assert dataset.fold(0).mean == (0.1, 0.2, 0.3)
    assert "secret" not in (tmp_path / "out" / "report.json").read_text()


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (("a.png", "g", "train"), r"two records for one image, a\.png; keep one of them"),
        (("g.png", "f", "train"), "the subject f is in split test and split train"),
        (("h.png", "h", "train"), r"cannot be read, .* \(h\.png: the file does not exist\)"),
        (("../raw/../x.png", "h", "train"), r"\(\.\./x\.png: the path points outside the raw folder\)"),
        (("g.png", "g", "validation"), r"image g\.png: the field 'split' must be one of train, test, not 'validation'"),
    ],
)
def test_a_bad_table_leaves_no_dataset(tmp_path, more, sentence):
    root = own_images(tmp_path)
    with pytest.raises(InputError, match=sentence):
        prepare(mine(more), root, tmp_path / "out", name="mine", size=4)
    assert not (tmp_path / "out").exists()


def test_arguments(oai_folder, tmp_path):
    root, out = oai_folder(), tmp_path / "out"
    for keywords, sentence in (
        ({"private": out / "private"}, "the private file must not lie in the packed dataset"),
        ({"private": root / "enrollees.txt" / "x"}, "the private file cannot be written there"),
        ({"size": 0}, "must be at least 1 pixel"),
        ({"unreadable_limit": 1.0}, "a share from 0 to below 1"),
        ({"label": "knee"}, "There is no label 'knee'"),
    ):
        with pytest.raises(InputError, match=sentence):
            packed(root, out, **keywords)
    with pytest.raises(InputError, match="this raw folder does not exist"):
        packed(tmp_path / "nowhere", out)
    with pytest.raises(InputError, match=r"subject-side needs a side for every image; a\.png has none"):
        prepare(mine(), own_images(tmp_path / "other"), out, name="mine", label="subject-side")
    out.mkdir()
    (out / "thesis.tex").write_text("precious")
    with pytest.raises(InputError, match="something is there already"):
        packed(root, out)
    assert (out / "thesis.tex").read_text() == "precious"


def test_killed_midway_it_leaves_no_dataset_and_the_next_one_carries_on(oai_folder, tmp_path):
    root = oai_folder(subjects=LONG)
    script = f"""
        import os, signal
        from marginlab.data.oai import OAI
        from marginlab.data.store import prepare
        def kill(done, total):
            if done == 20:
                os.kill(os.getpid(), signal.SIGKILL)
        prepare(OAI(), {str(root)!r}, {str(tmp_path / "out")!r}, name="knees", size=16, workers=1, progress=kill)
    """
    path = os.pathsep.join(p for p in sys.path if p)
    result = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], env={**os.environ, "PYTHONPATH": path})
    assert result.returncode == -signal.SIGKILL
    assert not (tmp_path / "out").exists()
    left = [file for file in (tmp_path / ".out.partial").rglob("*") if file.is_file()]
    assert len(left) == 3
    for file in left:  # what is left behind names nobody, either
        assert not any(secret in file.read_bytes() for secret in (b"SUBJECT", b"4f9c1d7ab2e86035", b"ResizedImages"))
    seen = []
    assert len(packed(root, tmp_path / "out", crop=None, progress=lambda *done: seen.append(done)).manifest) == 40
    assert seen[0] == (32, 40)
    assert not (tmp_path / ".out.partial").exists()
