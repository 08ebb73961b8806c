import json

import numpy as np
import polars as pl
import pytest

from marginlab.data.oai import OAI
from marginlab.data.packed import PackedDataset
from marginlab.data.store import prepare
from marginlab.values import InputError


@pytest.fixture
def dataset(oai_folder, tmp_path):
    return prepare(OAI(), oai_folder(), tmp_path / "out", name="knees", size=8)


def rewrite(folder, change):
    """The packed folder with another manifest."""
    rows = pl.read_parquet(folder / "manifest.parquet")
    rows.with_columns(change).write_parquet(folder / "manifest.parquet")


def test_folds_partition_the_training_split_and_leave_the_test_split_out(dataset):
    train = set(dataset.manifest.filter(pl.col("split") == "train")["row"])
    seen = []
    for i in range(5):
        data = dataset.fold(i)
        assert set(data.train.rows) | set(data.validation.rows) == train
        assert not set(data.train.rows) & set(data.validation.rows)
        people = [set(dataset.manifest["subject"].gather(s.rows)) for s in (data.train, data.validation)]
        assert not people[0] & people[1]
        seen += data.validation.rows.tolist()
        assert (data.fingerprint, data.channels, data.size) == (dataset.fingerprint, 1, 8)
        assert (data.mean, data.std) == ((0.49961,), (0.30885,))
    assert sorted(seen) == sorted(train)
    assert set(dataset.test().rows) == set(range(40)) - train
    with pytest.raises(InputError, match="there is no fold 5"):
        dataset.fold(5)


def test_labels_and_visits_of_the_test_split(dataset):
    """Three subjects, each with L and R at months 0 and 12, in the order of their file names: 00 L, 00 R, 12 L, 12 R."""
    test = dataset.test()
    assert test.label.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert test.visit.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    assert test.months.tolist() == [0, 0, 12, 12] * 3
    assert test.gallery.tolist() == [True, True, False, False] * 3
    assert test.query.tolist() == [False, False, True, True] * 3
    assert test.horizons() == [12]
    kinds = [test.rows, test.label, test.visit, test.months, test.gallery, test.query]
    assert [a.dtype.name for a in kinds] == ["int64", "int64", "int64", "float32", "bool", "bool"]
    assert all(a.flags.writeable for a in kinds)  # torch.from_numpy warns otherwise


def test_a_knee_as_label(oai_folder, tmp_path):
    test = prepare(OAI(), oai_folder(), tmp_path / "out", name="knees", size=8, label="subject-side").test()
    assert test.label.tolist() == [0, 1, 0, 1, 2, 3, 2, 3, 4, 5, 4, 5]
    assert len(set(test.visit)) == 12  # the other knee of the same day has another label anyway
    assert test.subject is not None and test.subject.tolist() == [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2]


def test_an_image_of_unknown_month_is_a_visit_of_its_own(dataset):
    rewrite(dataset.folder, pl.when(pl.col("months") == 0).then("months").alias("months"))
    test = PackedDataset.open(dataset.folder).test()
    assert np.isnan(test.months[2:4]).all()
    assert test.visit[:4].tolist() == [0, 0, 1, 2]


def test_describe(dataset):
    summary = dataset.describe()
    everybody = {
        "images": 40,
        "subjects": 10,
        "labels": 10,
        "visits": 20,
        "gallery": 20,
        "queries": 20,
        "horizons": [12],
    }
    assert {k: summary[k] for k in everybody} == everybody
    assert [summary["splits"][s]["images"] for s in ("train", "test")] == [28, 12]
    assert sum(f["subjects"] for f in summary["folds"]) == 7
    assert json.loads(json.dumps(summary)) == summary


@pytest.mark.parametrize("name", ["dataset.json", "manifest.parquet", "images.npy", "report.json"])
def test_a_file_that_is_missing(dataset, name):
    (dataset.folder / name).unlink()
    with pytest.raises(InputError, match=f"the file {name} is missing, so this is no packed dataset"):
        PackedDataset.open(dataset.folder)


@pytest.mark.parametrize("name", ["dataset.json", "manifest.parquet", "images.npy"])
@pytest.mark.parametrize("share", [0, 0.5])
def test_a_file_that_is_cut_short(dataset, name, share):
    file = dataset.folder / name
    content = file.read_bytes()
    file.write_bytes(content[: int(share * len(content))])
    with pytest.raises(InputError, match=rf"{name}: the file is (cut short or )?damaged"):
        PackedDataset.open(dataset.folder)


def test_another_format_or_files_that_do_not_belong_together(dataset):
    info = json.loads((dataset.folder / "dataset.json").read_text())
    for change, sentence in (
        ({"format": 99}, "the format is 99, this MarginLab reads 1"),
        ({"images": 39}, r"images\.npy is uint8 \(40, 1, 8, 8\) and manifest\.parquet has 40 rows, but"),
        ({"size": 9}, "these files do not belong together"),
    ):
        (dataset.folder / "dataset.json").write_text(json.dumps({**info, **change}))
        with pytest.raises(InputError, match=sentence):
            PackedDataset.open(dataset.folder)
    (dataset.folder / "dataset.json").write_text(json.dumps({k: v for k, v in info.items() if k != "mean"}))
    with pytest.raises(InputError, match="the field 'mean' is missing"):
        PackedDataset.open(dataset.folder)


def test_a_leak_in_the_manifest_stops_it(dataset):
    rewrite(
        dataset.folder,
        pl.when(pl.col("row") == 0).then(4 - pl.col("fold")).otherwise("fold").cast(pl.Int8).alias("fold"),
    )
    with pytest.raises(InputError, match=r"manifest\.parquet: the subject [0-9a-f]{20} is in fold \d and fold \d"):
        PackedDataset.open(dataset.folder)
