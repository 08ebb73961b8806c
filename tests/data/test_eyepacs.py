from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.model_selection import train_test_split

from marginlab.data import eyepacs
from marginlab.data.eyepacs import EyePACS, EyePACSByImage, image_split
from marginlab.data.packed import PackedDataset
from marginlab.data.raw import RawTable, conform
from marginlab.data.readers import reader
from marginlab.data.splits import drawn_split, with_folds
from marginlab.data.store import prepare
from marginlab.values import InputError

PATIENTS = ("10", "13", "15", "16", "17", "19")


def eye(path: Path, colour: tuple[int, int, int] = (150, 80, 40)) -> None:
    """A disc on a black ground, wider than high."""
    path.parent.mkdir(parents=True, exist_ok=True)
    y, x = np.mgrid[:30, :48]
    field = np.hypot(x - 23.5, y - 14.5) < 13
    Image.fromarray((field[..., None] * np.array(colour)).astype(np.uint8)).save(path)


def write(root: Path, folder: str = ".", ending: str = "jpeg", head: str = "image,level") -> Path:
    """Both eyes of each patient: patient n of the list has n modulo 5 on the left, 0 on the right."""
    lines = [head]
    for i, patient in enumerate(PATIENTS):
        for side, grade in (("left", i % 5), ("right", 0)):
            eye(root / folder / f"{patient}_{side}.{ending}")
            lines.append(f"{patient}_{side},{grade}")
    (root / "trainLabels.csv").write_text("\n".join(lines) + "\n")
    return root


def label(root: Path, *lines: str) -> None:
    with open(root / "trainLabels.csv", "a") as file:
        file.writelines(f"{line}\n" for line in lines)


def said(table: RawTable) -> list[tuple[str, tuple[str, ...]]]:
    return [(p.sentence, p.items) for p in table.problems]


@pytest.mark.parametrize(
    ("folder", "ending", "head"),
    [
        (".", "jpeg", "image,level"),
        ("train", "jpg", "Image,Level"),
        ("resized_train/resized_train", "png", "IMAGE, LEVEL"),
        ("my images", "JPEG", "image,level"),
    ],
)
def test_every_layout_gives_the_same_records(tmp_path: Path, folder: str, ending: str, head: str) -> None:
    table = EyePACS().read(write(tmp_path, folder, ending, head))
    assert said(table) == []
    rows = conform(table.rows, "eyes").select("path", "subject", "side", "grade", "role", "months", "site", "flip")
    expected = [
        ((Path(folder) / f"{p}_{side}.{ending}").as_posix(), p, side[0].upper(), g, "other", None, None, False)
        for i, p in enumerate(PATIENTS)
        for side, g in (("left", i % 5), ("right", 0))
    ]
    assert rows.rows() == expected
    assert (table.channels, table.trim, table.crop, table.mean, table.std) == (3, True, None, (0.0,) * 3, (1.0,) * 3)


def test_the_split_is_by_patient_and_by_the_patients_own_identifier(tmp_path: Path) -> None:
    rows = EyePACS(test=0.5).read(write(tmp_path)).rows
    sides = dict(rows.select("subject", "split").unique().iter_rows())
    assert len(sides) == len(PATIENTS)
    assert list(sides[p] for p in PATIENTS) == drawn_split(pl.Series(PATIENTS), 0.5).to_list()


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_no_patient_is_ever_on_two_sides(data: st.DataObject) -> None:
    """Random patients, one eye or both, any share: one split and one fold each."""
    patients = data.draw(st.lists(st.text("01ü _a", min_size=1), min_size=25, max_size=60, unique=True))
    eyes = [(p, s) for p in patients for s in data.draw(st.sampled_from(["L", "R", "LR"]))]
    share = data.draw(st.floats(0.05, 0.6))
    rows = pl.DataFrame(eyes, ["subject", "side"], orient="row")
    rows = rows.with_columns(drawn_split(rows["subject"], share))
    if set(rows["split"]) == {"train", "test"} and rows.filter(split="train")["subject"].n_unique() >= 5:
        rows = with_folds(rows, "random")
        sides = rows.group_by("subject").agg(pl.col("split", "fold").n_unique())
        assert sides["split"].max() == sides["fold"].max() == 1


def test_what_is_left_out_is_counted_and_named_only_in_private(tmp_path: Path) -> None:
    write(tmp_path, "train")
    eye(tmp_path / "train" / "20_left.jpeg")  # no label
    eye(tmp_path / "train" / "readme.jpeg")
    eye(tmp_path / "train" / "._10_left.jpeg")  # hidden
    for name in ("21_left", "21_right", "22_left", "23_left"):
        eye(tmp_path / "train" / f"{name}.jpeg")
    eye(tmp_path / "test" / "1_left.jpeg")  # the competition's test images, whose labels are elsewhere
    label(tmp_path, "30_left,2", "21_left,5", "21_right,-1", "22_left,", "23_left,1", "23_left,2", "spoon,1")
    label(tmp_path, "10_left,0")  # once more, the same
    table = EyePACS().read(tmp_path)
    assert len(table.rows) == 2 * len(PATIENTS)
    assert said(table) == [
        ("1 label is left out: of an image not named <patient>_<left|right>.", ("spoon",)),
        ("1 label is left out: two grades for one image.", ("23_left",)),
        ("1 image file is left out: not named <patient>_<left|right>.", ("train/readme.jpeg",)),
        ("1 image file is not used: in another folder.", ("test/1_left.jpeg",)),
        ("2 images are left out: no label.", ("train/20_left.jpeg", "train/23_left.jpeg")),
        ("1 label is left out: no such image.", ("30_left",)),
        (
            "3 images are left out: a grade other than 0, 1, 2, 3 and 4.",
            ("train/21_left.jpeg", "train/21_right.jpeg", "train/22_left.jpeg"),
        ),
    ]


def test_names_with_spaces_umlauts_and_endings(tmp_path: Path) -> None:
    for name in ("Frau Ü 7_left.jpeg", "a_b_RIGHT.JPG"):
        eye(tmp_path / name)
    (tmp_path / "trainlabels.CSV").write_text("image,level\nFrau Ü 7_left.jpeg,4.0\na_b_right,1\n")
    rows = EyePACS().read(tmp_path).rows
    assert rows.select("subject", "side", "grade").rows() == [("Frau Ü 7", "L", 4), ("a_b", "R", 1)]


def test_what_cannot_be_read_ends_in_a_sentence(tmp_path: Path) -> None:
    def fails(sentence: str) -> None:
        with pytest.raises(InputError, match=sentence):
            EyePACS().read(tmp_path)

    fails(r"the table trainLabels\.csv is missing")
    (tmp_path / "trainLabels.csv").write_text("image,grade\n")
    fails("the column level is missing")
    (tmp_path / "trainLabels.csv").write_text("image,level\n10_left,0\n")
    fails("no image is named")
    eye(tmp_path / "train" / "11_left.jpeg")
    fails("no image has a grade")
    write(tmp_path, "train")
    eye(tmp_path / "resized" / "10_left.jpeg")
    fails(r"more than one folder \(resized, train\); keep one")
    (tmp_path / "resized" / "10_left.jpeg").rename(tmp_path / "train" / "10_left.png")
    fails(r"two files for one image, train/10_left.* and train/10_left")
    for share in (0.0, 1.0):
        with pytest.raises(InputError, match="EyePACS.test"):
            EyePACS(test=share)


def test_a_folder_becomes_a_packed_dataset(tmp_path: Path, private_home: Path) -> None:
    """Colours kept, borders gone; damaged and black images are left out and reported without their names."""
    raw = tmp_path / "raw"
    write(raw, "train")
    for i in range(20):
        eye(raw / "train" / f"secret{i}_left.jpeg")
        label(raw, f"secret{i}_left,{i % 5}")
    whole = (raw / "train" / "secret0_left.jpeg").read_bytes()
    (raw / "train" / "secret0_left.jpeg").write_bytes(whole[: len(whole) // 2])
    (raw / "train" / "secret1_left.jpeg").write_bytes(b"")
    Image.new("RGB", (20, 20)).save(raw / "train" / "secret2_left.jpeg")
    packed = prepare(EyePACS(), raw, tmp_path / "out", name="eyepacs", size=16, unreadable_limit=0.2)
    assert packed.pixels.shape == (29, 3, 16, 16)
    assert abs(packed.pixels[:, :, 8, 8].astype(int) - [150, 80, 40]).max() <= 6
    assert packed.pixels[:, 0, 8, 1].min() > 100 and packed.pixels[:, 0, 0, 0].max() < 60  # to the rim, and round
    assert sorted(packed.manifest["grade"].unique()) == [0, 1, 2, 3, 4]
    assert set(packed.manifest["role"]) == {"other"} and packed.manifest["site"].null_count() == 29
    assert packed.describe()["splits"]["test"]["horizons"] == []
    info = json.loads((packed.folder / "dataset.json").read_text())
    assert info["trim"] is True and info["mirrored"] == [] and info["reader"] == "marginlab.data.eyepacs:EyePACS"
    report = (packed.folder / "report.json").read_text()
    assert "secret" not in report and eyepacs.TABLES[0] not in report
    reasons = sorted(r["reason"] for r in json.loads(report)["unreadable"])
    assert [r.split(" (")[0] for r in reasons] == [
        "the file is empty",
        "the image is black: hardly a pixel is brighter than 16 of 255",
        "the image is truncated or damaged",
    ]


@pytest.mark.parametrize(("count", "seed"), [(35_108, 11), (35_126, 11), (101, 3), (5, 0), (12, 11)])
def test_the_published_split_is_scikit_learns(count: int, seed: int) -> None:
    train, test = train_test_split(np.arange(count), test_size=0.2, random_state=seed)
    drawn = image_split(count, seed)
    assert np.flatnonzero(drawn).tolist() == sorted(test) and np.flatnonzero(~drawn).tolist() == sorted(train)


def test_the_published_list_has_as_many_images_as_published() -> None:
    assert (image_split(35_108, 11).sum(), (~image_split(35_108, 11)).sum()) == (7_022, 28_086)


def by_image(root: Path) -> tuple[Path, list[str], list[str]]:
    """Eight patients with both eyes; the table is in no order, and one of its images is missing."""
    names = [f"{p}_{side}" for p in (21, 5, 300, 4, 77, 8, 61, 12) for side in ("right", "left")]
    names = [names[i] for i in np.random.default_rng(0).permutation(len(names))]
    for name in names[:3] + names[4:]:
        eye(root / "train" / f"{name}.jpeg")
    (root / "trainLabels.csv").write_text("image,level\n" + "".join(f"{n},{i % 5}\n" for i, n in enumerate(names)))
    return root, *(list(part) for part in train_test_split(names, test_size=0.2, random_state=11))


def test_split_by_image_the_leak_is_counted_by_hand(tmp_path: Path) -> None:
    """Of the images that are kept: one is missing, and of those in the test split one is damaged."""
    root, train, test = by_image(tmp_path / "raw")
    table = reader("eyepacs-by-image").read(root)
    found = {Path(path).stem: split for path, split in table.rows.select("path", "split").rows()}
    gone = (set(train) | set(test)) - set(found)
    assert len(gone) == 1 and found == {n: "test" if n in test else "train" for n in {*train, *test} - gone}
    assert table.leaks and len(test) == 4  # 16 rows, a fifth of them rounded up
    patients = {n.split("_")[0] for n in train if n in found}
    damaged = next(n for n in test if n in found and n.split("_")[0] not in patients)
    (root / "train" / f"{damaged}.jpeg").write_bytes(b"")
    kept = [n for n in test if n in found and n != damaged]
    fellows = [n for n in kept if n.split("_")[0] in patients]
    packed = prepare(
        EyePACSByImage(), root, tmp_path / "out", name="x", size=8, unreadable_limit=0.1, private=tmp_path / "secret"
    )
    report = json.loads((packed.folder / "report.json").read_text())
    assert fellows and report["problems"] == [
        "1 label is left out: no such image.",
        f"The test split leaks: {len({n.split('_')[0] for n in fellows})} of its "
        f"{len({n.split('_')[0] for n in kept})} subjects are also in the training split, so another image of the same subject "
        f"is there for {len(fellows)} of its {len(kept)} images.",
    ]
    assert packed.info["leak"]["sentence"] == report["problems"][-1]


def test_that_leak_and_no_other_gets_into_a_packed_dataset(tmp_path: Path, private_home: Path) -> None:
    root, _, test = by_image(tmp_path / "raw")
    packed = prepare(EyePACSByImage(), root, tmp_path / "out", name="leaky", size=8, label="grade")
    info = json.loads((tmp_path / "out" / "dataset.json").read_text())
    rows = packed.manifest
    assert (rows["split"] == "test").sum() == info["leak"]["test_images"] <= len(test)
    torn = rows.group_by("subject").agg(pl.col("split").n_unique()).filter(pl.col("split") > 1)
    assert len(torn) == info["leak"]["subjects"] > 0
    folds = rows.filter(split="train").group_by("subject").agg(pl.col("fold").n_unique())
    assert folds["fold"].to_list() == [1] * len(folds)

    def opens_as(**changes: object) -> None:
        (tmp_path / "out" / "dataset.json").write_text(json.dumps({**info, **changes}))
        PackedDataset.open(tmp_path / "out")

    opens_as()
    with pytest.raises(InputError, match="is in split .* such subjects"):
        opens_as(leak=None)
    for wrong in ({**info["leak"], "images": 1 + info["leak"]["images"]}, {}, "yes"):
        with pytest.raises(InputError, match="leaks otherwise than dataset.json says"):
            opens_as(leak=wrong)
    both = rows.filter((pl.col("split") == "train") & (pl.col("row").count().over("subject", "split") == 2))["row"][0]
    moved = pl.when(pl.col("row") == both).then((pl.col("fold") + 1) % 5).otherwise("fold").cast(pl.Int8)
    twice = rows.with_columns(fold=moved)  # the two eyes of a training patient in two folds
    twice.write_parquet(tmp_path / "out" / "manifest.parquet")
    with pytest.raises(InputError, match="is in fold"):
        opens_as()
