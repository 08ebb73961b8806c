import pytest
from PIL import Image

from marginlab.data.cxr14 import CXR14
from marginlab.data.raw import conform
from marginlab.values import InputError

HEADER = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Sex,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]\n"
)


def entry(name, visit, patient, age, view="PA"):
    return f"{name},Mass|Nodule,{visit},{patient},{age},F,{view},2682,2749,0.143,0.143\n"


def write_by_hand(root):
    """Patient 1: three pictures over three years, 2: an age that falls, 3: test, wrong age at the first follow-up."""
    table = [
        entry("00000001_000.png", 0, 1, 57),
        entry("00000001_001.png", 1, 1, 57, "AP"),
        entry("00000001_002.png", 2, 1, 60),
        entry("00000002_001.png", 3, 2, 39),
        entry("00000002_000.png", 2, 2, 40),
        entry("00000003_000.png", 0, 3, 411),
        entry("00000003_001.png", 1, 3, 20),
        entry("00000003_002.png", 2, 3, 33),
        entry("00000004_000.png", 0, 4, 20),
    ]
    for i, folder in enumerate(("images_001/images", "images_002/images", "images")):
        (root / folder).mkdir(parents=True)
        for line in table[3 * i : 3 * i + 3]:
            Image.new("L", (8, 8)).save(root / folder / line.split(",")[0])
    (root / "Data_Entry_2017_v2020.csv").write_text(HEADER + "".join(table))
    (root / "train_val_list.txt").write_text(
        "\n".join(f"0000000{n}.png" for n in ("1_000", "1_001", "1_002", "2_000", "2_001"))
    )
    (root / "test_list.txt").write_text("00000003_000.png\n00000003_001.png\n00000003_002.png\n")
    return root


def test_values_worked_out_by_hand(tmp_path):
    table = CXR14().read(write_by_hand(tmp_path / "raw"))
    rows = conform(table.rows, "cxr").select(
        "path", "subject", "split", "months", "side", "view", "age", "role", "flip"
    )
    assert rows.rows() == [
        ("images/00000003_001.png", "3", "test", 0.0, None, "PA", 20.0, None, False),
        ("images/00000003_002.png", "3", "test", 156.0, None, "PA", 33.0, "other", False),
        ("images_001/images/00000001_000.png", "1", "train", 0.0, None, "PA", 57.0, None, False),
        ("images_001/images/00000001_001.png", "1", "train", 0.0, None, "AP", 57.0, None, False),
        ("images_001/images/00000001_002.png", "1", "train", 36.0, None, "PA", 60.0, None, False),
        ("images_002/images/00000002_000.png", "2", "train", 0.0, None, "PA", 40.0, None, False),
        ("images_002/images/00000002_001.png", "2", "train", -12.0, None, "PA", 39.0, "other", False),
    ]
    assert (table.crop, table.channels, table.mean, table.std) == (None, 1, (0.5,), (0.5,))
    assert [(p.sentence, p.items) for p in table.problems] == [
        ("1 image is left out: in neither official list.", ("00000004_000.png",)),
        ("1 image is left out: no age between 0 and 120.", ("00000003_000.png",)),
        (
            "2 images are neither gallery nor query: months below 0 or from 156 on.",
            ("00000002_001.png", "00000003_002.png"),
        ),
        ("2 image files are not used.", ("00000003_000.png", "00000004_000.png")),
    ]


def test_the_older_table_writes_units(tmp_path):
    root = write_by_hand(tmp_path / "raw")
    (root / "Data_Entry_2017_v2020.csv").unlink()
    ages = {
        "00000001_000.png": "009M",
        "00000001_001.png": "001Y",
        "00000001_002.png": "013Y",
        "00000003_001.png": "400D",
    }
    (root / "Data_Entry_2017.csv").write_text(
        HEADER.rstrip("\n")
        + ",\n"
        + "".join(entry(n, i, n[7], a).rstrip("\n") + ",\n" for i, (n, a) in enumerate(ages.items()))
    )
    rows = CXR14().read(root).rows
    assert rows["age"].to_list() == [0, 1, 13, 1]
    assert rows["months"].to_list() == [0, 12, 156, 0]


def test_a_row_without_its_image_stays_for_prepare_to_report(tmp_path):
    root = write_by_hand(tmp_path / "raw")
    (root / "images_001/images/00000001_001.png").unlink()
    assert "images/00000001_001.png" in CXR14().read(root).rows["path"]


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("Data_Entry_2017_v2020.csv", r"the table Data_Entry_2017_v2020\.csv \(or Data_Entry_2017\.csv\) is missing"),
        ("train_val_list.txt", r"the official list train_val_list\.txt is missing"),
        ("test_list.txt", r"the official list test_list\.txt is missing"),
    ],
)
def test_a_missing_file(tmp_path, name, sentence):
    root = write_by_hand(tmp_path / "raw")
    (root / name).unlink()
    with pytest.raises(InputError, match=sentence):
        CXR14().read(root)


def test_a_missing_column(tmp_path):
    root = write_by_hand(tmp_path / "raw")
    table = root / "Data_Entry_2017_v2020.csv"
    table.write_text(table.read_text().replace("Patient Age", "Age"))
    with pytest.raises(InputError, match=r"Data_Entry_2017_v2020\.csv: the column Patient Age is missing"):
        CXR14().read(root)


def test_an_image_in_both_lists(tmp_path):
    root = write_by_hand(tmp_path / "raw")
    (root / "test_list.txt").write_text("00000001_000.png\n")
    with pytest.raises(InputError, match=r"00000001_000\.png is both in train_val_list\.txt and in test_list\.txt"):
        CXR14().read(root)


def test_no_images(tmp_path):
    root = write_by_hand(tmp_path / "raw")
    for image in root.rglob("*.png"):
        image.unlink()
    with pytest.raises(InputError, match=r"no images \(\.png\) are in images/"):
        CXR14().read(root)
