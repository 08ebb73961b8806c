"""The knee phantom as files: what the reader of the real data makes of them."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from marginlab.data.oai import OAI
from marginlab.data.phantom import OaiPhantom, write
from marginlab.data.phantom.layout_oai import VISITS, pictures, subject

PHANTOM = OaiPhantom(subjects=25, size=32, seed=5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("oai") / "raw"
    told: list[tuple[int, int]] = []
    write(PHANTOM, out, progress=lambda done, total: told.append((done, total)))
    assert told == [(i + 1, 25) for i in range(25)]
    return out


def table(path: Path) -> pl.DataFrame:
    return pl.read_csv(path, separator="|", infer_schema=False)


def test_images_are_named_and_stored_as_delivered(folder: Path) -> None:
    for file in (folder / "ResizedImages").iterdir():
        assert re.fullmatch(r"9\d{6}_(0|12|24|36|48|72|96)_\w+_[LR]\.png", file.name)
        with Image.open(file) as image:
            assert (image.mode, image.size) == ("L", (32, 32))


def test_tables_have_the_columns_of_every_visit(folder: Path) -> None:
    enrollees = table(folder / "enrollees.txt")
    assert {"ID", "V00SITE", "P02SEX"} <= set(enrollees.columns)
    assert enrollees["ID"].n_unique() == 25
    assert Counter(enrollees["V00SITE"]) == dict.fromkeys("ABCDE", 5)
    for code in VISITS.values():
        clinical = table(folder / f"allclinical{code}.txt")
        names = ("P01BMI", "P01INJL", "V00WOMTSR") if code == "00" else (f"V{code}BMI", f"V{code}KSRGL12")
        assert {"ID", f"V{code}AGE", *names} <= set(clinical.columns)
        assert clinical["ID"].is_unique().all()
        grades = table(folder / f"kxr_sq_bu{code}.txt")
        assert grades.columns == ["ID", "SIDE", "READPRJ", f"V{code}XRKL"]
        assert set(grades["SIDE"]) <= {"1", "2"}
        assert set(grades[f"V{code}XRKL"]) <= set("01234.")


@pytest.mark.parametrize("tables", ["csv", "ascii"])
def test_other_forms_of_the_tables(tmp_path: Path, tables: str) -> None:
    write(OaiPhantom(subjects=1, size=32, tables=tables), tmp_path)
    text = {
        f.relative_to(tmp_path).as_posix(): f.read_text() for f in tmp_path.rglob("*.*") if f.suffix in (".csv", ".txt")
    }
    if tables == "csv":
        assert sorted(text) == sorted(
            [
                "enrollees.csv",
                *(f"{name}{code}.csv" for name in ("allclinical", "kxr_sq_bu") for code in VISITS.values()),
            ]
        )
        assert text["allclinical03.csv"].startswith("ID,v03AGE,v03BMI") and text["kxr_sq_bu01.csv"].endswith(
            "V01XRKL\n"
        )
    else:
        assert re.fullmatch(
            r"ID\|V00SITE\|P02SEX\n9\d{6}\|[A-E]\|(1: Male|2: Female)\n", text["General_ASCII/Enrollees.txt"]
        )
        assert text["AllClinical_ASCII/AllClinical00.txt"].startswith("ID|V00AGE|P01BMI")
        grades = text["Semi-Quant Scoring_ASCII/kxr_sq_bu00.txt"].splitlines()[1:]
        assert len(grades) == 4  # two knees, two readings
        assert re.fullmatch(r"9\d{6}\|1: Right\|15\|[0-4]: [A-Z][a-z]+", grades[0])


def test_the_reader_accepts_every_image(folder: Path) -> None:
    raw = OAI().read(folder)
    assert raw.problems == ()
    assert len(raw.rows) == len(list((folder / "ResizedImages").iterdir()))
    assert raw.rows.filter(months=0).group_by("subject").len()["len"].to_list() == [2] * 25
    splits = raw.rows.group_by("subject").agg(pl.col("split").n_unique(), pl.col("site").first())
    assert (splits["split"] == 1).all()
    assert (raw.rows["split"] == "test").to_list() == (raw.rows["site"] == "C").to_list()
    assert raw.rows["age"].is_between(45, 90).all()
    aged = raw.rows.sort("months").group_by("subject", maintain_order=True).agg(pl.col("age"), pl.col("months"))
    for age, months in zip(aged["age"], aged["months"], strict=True):
        assert np.abs((age - age[0]).to_numpy() - months.to_numpy() / 12).max() < 1


def test_visits_after_the_first_are_sometimes_missed() -> None:
    people = [subject(OaiPhantom(), i) for i in range(200)]
    attended = Counter(m for p in people for m in p.months)
    assert attended.pop(0) == 200
    assert set(attended) == {12, 24, 36, 48, 72, 96}
    assert all(50 < n < 110 for n in attended.values())
    assert any(len(p.visits) != 2 * len(p.months) for p in people)
    assert len({p.id for p in people}) == 200


def test_a_subject_does_not_depend_on_the_others(folder: Path, tmp_path: Path) -> None:
    write(OaiPhantom(subjects=3, size=32, seed=5), tmp_path)
    files = list((tmp_path / "ResizedImages").iterdir())
    assert files
    for file in files:
        assert file.read_bytes() == (folder / "ResizedImages" / file.name).read_bytes()


def test_files_hold_the_pictures(folder: Path) -> None:
    person = subject(PHANTOM, 7)
    for v, pixels in zip(person.visits, pictures(PHANTOM, 7, person), strict=True):
        with Image.open(folder / "ResizedImages" / (person.name(v) + ".png")) as image:
            np.testing.assert_array_equal(np.asarray(image), pixels)
