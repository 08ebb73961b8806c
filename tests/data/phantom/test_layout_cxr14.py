"""The chest phantom as files: what the reader of the real data makes of them."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from marginlab.data.cxr14 import CXR14
from marginlab.data.phantom import Cxr14Phantom, write
from marginlab.data.phantom.layout_cxr14 import HEADER, PER_FOLDER, patient, pictures

PHANTOM = Cxr14Phantom(subjects=PER_FOLDER + 5, size=32, seed=5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("cxr14") / "raw"
    told: list[tuple[int, int]] = []
    write(PHANTOM, out, progress=lambda done, total: told.append((done, total)))
    assert told[-1] == (PHANTOM.subjects, PHANTOM.subjects)
    return out


def entries(folder: Path) -> pl.DataFrame:
    return pl.read_csv(folder / "Data_Entry_2017_v2020.csv")


def test_the_table_has_the_real_header_and_a_row_per_image(folder: Path) -> None:
    assert (folder / "Data_Entry_2017_v2020.csv").read_text().splitlines()[0] == HEADER
    rows = entries(folder)
    files = {f.name: f for f in folder.glob("images_*/images/*.png")}
    assert set(rows["Image Index"]) == set(files)
    assert {f.parent.parent.name for f in files.values()} == {"images_001", "images_002"}
    for name, who, number in rows.select("Image Index", "Patient ID", "Follow-up #").iter_rows():
        assert re.fullmatch(r"\d{8}_\d{3}\.png", name)
        assert (int(name[:8]), int(name[9:12])) == (who, number)
    assert set(rows["View Position"]) == {"AP", "PA"}
    assert set(rows["Patient Gender"]) == {"F", "M"}
    assert set(rows["Finding Labels"].str.split("|").explode()) >= {"No Finding", "Effusion"}


def test_follow_ups_count_from_one_first_picture_on_and_ages_only_rise(folder: Path) -> None:
    for part in entries(folder).partition_by("Patient ID"):
        assert part["Follow-up #"].to_list() == list(range(len(part)))
        assert part["Patient Age"].is_sorted()
        assert part["Patient Age"].max() - part["Patient Age"].min() <= 12
        assert part["Patient Gender"].n_unique() == 1


def test_the_official_lists_are_disjoint_by_patient_and_complete(folder: Path) -> None:
    lists = [(folder / f"{name}.txt").read_text().split() for name in ("train_val_list", "test_list")]
    train, test = ({name[:8] for name in names} for names in lists)
    assert not train & test
    assert (len(train), len(test)) == (52, 13)
    assert sorted(lists[0] + lists[1]) == sorted(entries(folder)["Image Index"])


def test_the_reader_accepts_every_image(folder: Path) -> None:
    raw = CXR14().read(folder)
    assert raw.problems == ()
    assert len(raw.rows) == len(entries(folder))
    assert raw.rows["months"].is_between(0, 144).all()
    assert all((folder / path).is_file() for path in raw.rows["path"])


def test_images_are_grey_but_for_a_few_and_a_few_ages_wrong() -> None:
    people = [patient(Cxr14Phantom(subjects=300), i) for i in range(300)]
    for share in (np.concatenate([p.coloured for p in people]), np.concatenate([p.wrong for p in people])):
        assert 0 < share.mean() < 0.03


def test_files_hold_the_pictures(folder: Path) -> None:
    checked = set()
    for index in range(PHANTOM.subjects):
        person = patient(PHANTOM, index)
        if any(person.coloured) or index == 0:
            for v, pixels, coloured in zip(
                person.visits, pictures(PHANTOM, index, person), person.coloured, strict=True
            ):
                with Image.open(next(folder.glob(f"images_*/images/{person.file(v)}"))) as image:
                    assert image.mode == ("RGBA" if coloured else "L")
                    np.testing.assert_array_equal(np.asarray(image.convert("L")), pixels)
                checked.add(coloured)
    assert checked == {False, True}


def test_a_patient_does_not_depend_on_the_others(folder: Path, tmp_path: Path) -> None:
    write(Cxr14Phantom(subjects=2, size=32, seed=5), tmp_path)
    files = [f.relative_to(tmp_path) for f in tmp_path.glob("images_*/images/*.png")]
    assert files
    for file in files:
        assert (tmp_path / file).read_bytes() == (folder / file).read_bytes()


def test_lines_of_the_older_tables_end_in_a_comma_and_some_ages_are_wrong() -> None:
    person = patient(Cxr14Phantom(seed=80), 4)
    assert person.wrong.index(True) == 1 and sum(person.wrong) == 1
    first, second = (
        [person.row(v, table).split(",")[4:] for table in ("2020", "2017", "2017-units")] for v in person.visits[:2]
    )
    years = int(person.age)
    assert [fields[0] for fields in first] == [str(years), str(years), f"{years:03d}Y"]
    assert [fields[0] for fields in second[1:]] == ["148", "148Y"] and int(second[0][0]) <= 92
    assert [fields[-1] for fields in first] == ["0.168", "", ""]
