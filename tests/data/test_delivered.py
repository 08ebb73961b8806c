"""Every form in which the providers deliver the same data ends in the same dataset."""

from __future__ import annotations

import base64
import dataclasses
import shutil
import zlib
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from sklearn.model_selection import train_test_split

from marginlab.data.cxr14 import CXR14
from marginlab.data.eyepacs import EyePACSByImage
from marginlab.data.oai import ENDINGS, OAI, VISITS
from marginlab.data.packed import PackedDataset
from marginlab.data.phantom import Cxr14Phantom, EyePacsPhantom, OaiPhantom, count, write
from marginlab.data.raw import conform
from marginlab.data.readers import reader
from marginlab.data.store import prepare
from marginlab.values import InputError
from tests.data.conftest import picture
from tests.data.test_oai import SAS_CLINICAL, SAS_ENROLLEES
from tests.searching import holding

PHANTOMS: dict[str, Any] = {  # of seeds with few images, and what is rare among these
    "oai": OaiPhantom(subjects=7, size=32, seed=29),
    "cxr14": Cxr14Phantom(subjects=7, size=32, seed=80),  # one is RGBA, and one age is wrong in the older tables
    "eyepacs": EyePacsPhantom(subjects=7, size=32, seed=33, images="png"),  # one is missing in the cropped copy
}
FORMS = [
    *(("oai", {"tables": t, "images": i}) for t, i in zip(cycle(("csv", "ascii")), OaiPhantom.forms["images"])),
    ("cxr14", {"table": "2017", "folders": "one"}),
    ("cxr14", {"table": "2017-units", "folders": "twelve"}),
    ("cxr14", {"folders": "one"}),
    ("eyepacs", {"images": "jpeg"}),
    *(("eyepacs", {"copy": copy}) for copy in EyePacsPhantom.forms["copy"][1:]),
]
LOST = {"2017": "00000005_001", "2017-units": "00000005_001", "cropped": "1290_right"}
Made = tuple[PackedDataset, list[str], list[str]]


def made(name: str, folder: Path, **form: str) -> Made:
    """Rendered and prepared; with the names of its images, by row, and what was left out."""
    phantom = dataclasses.replace(PHANTOMS[name], **form)
    write(phantom, folder / "raw")
    secret = folder / "secret"
    packed = prepare(reader(name), folder / "raw", folder / "out", name=name, size=32, workers=1, private=secret)
    assert len(packed.manifest) == sum(count(phantom))
    table = reader(name).read(folder / "raw")
    names = [Path(path).stem for path in conform(table.rows, name)["path"]]
    return packed, names, [p.sentence for p in table.problems]


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Made]:
    return {name: made(name, tmp_path_factory.mktemp(name)) for name in PHANTOMS}


@pytest.mark.parametrize(("name", "form"), FORMS)
def test_all_forms_end_in_one_dataset(tmp_path: Path, usual: dict[str, Made], name: str, form: dict[str, str]) -> None:
    packed, names, problems = made(name, tmp_path, **form)
    known, known_names, known_problems = usual[name]
    lost = [LOST[word] for word in form.values() if word in LOST]
    assert names == [n for n in known_names if n not in lost] and known_problems == []
    ages = ["1 image is left out: no age between 0 and 120.", "1 image file is not used."]
    assert problems == (ages if name == "cxr14" and lost else [])
    kept = pl.Series([n not in lost for n in known_names])
    columns = ["side", "view", "site", "split", "age", "grade", "channels", "months"]
    since = pl.col("months") - pl.col("months").min().over("subject")  # of the visits that are left
    assert packed.manifest.select(columns).equals(known.manifest.filter(kept).with_columns(since).select(columns))
    before = known.pixels[np.flatnonzero(kept)].astype(int)
    if "jpeg" in form.values():
        assert 0 < np.abs(packed.pixels - before).mean() < 4
    else:
        assert np.array_equal(packed.pixels, before)
        assert (packed.fingerprint == known.fingerprint) == (not lost)
    assert holding(["Phantom^", *(n for n in names if len(n) > 9)], packed.folder) == []


# ID, SIDE and V00XRKL, all numbers: knees R 3 and L 0 of 9000001, L missing and then 4 of 9000002. Written with ReadStat.
SAS_GRADES = "c-muNK!8K98WT2)2%g_NiGzXjxM7ckynvvw5`(cZBa<N`M2QFk12ZFvxG|%$F@uN*g90-n%$#7yU<Ef%A6FO05XWHG5CvR-fdByMhpC%tRQT>j$$du{jiFcof*H|-E%gjc3=DlueKPY(E0DyE^$ZR440H_*%?$Jm4fPDsjjOOQi#Ibt@Im(8tdZ-6VRZE~cHQ}h>`sPJFbYP&C>RB!U=)mkQ7{Td!6+C7qhJt$nb3YKIuK`vGMM-oxPjCS9tc;18CBf@sJH~0{tPY%9l?Yut^gJHfC)f5>~A<Bv<aH{0;sqTns^3O+yYHp11j!-=AIWE*u_^65Jxi}?1c`kL}>s1gFS@ia6lDDG0p)){Nj&#tl|s;4x=e@6pVsVFbYP&C_sRJzyE{5kkt>-{$B;kmx0pEK*-1dYgGOJ&&+_@VEO~qXMtuOxOu|D$iRWd7eM191E^8|72qN&P}?*ZSirOn13Q{Mf1!Girb0x}=W)REJRz<Do-Paw!JaOzVFm^fLEb(L*gOLB2Md&Dr%`(0VMh%=SV*v;wddH-{K<&sK6L(nG<B?K>R8d@n-R^Q=zM6hBABjz5vlIyf6CJ7Py^q90FsYT!FM14x6q+{UNm_@10|Gx3kweO(an`XH%|an-XATU{2yWQL96~KsQ{MGn9%rKXnY<tK0g|tgJwSEKuU8WNcQl6*)l}h%mQ>NBStB@0!bcc(0~B|rH1WQ"


def sas_tables(root: Path) -> None:
    """Those of all seven visits: subjects 9000001 (site A, 61 years), 9000002 (C, 54.5) and 9000003 without an age."""
    (root / "enrollees.sas7bdat").write_bytes(unpacked(SAS_ENROLLEES))
    for code in VISITS.values():
        for name, content in (("AllClinical", SAS_CLINICAL), ("kxr_sq_bu", SAS_GRADES)):
            column = b"v" if code in ("03", "08") else b"V"  # both spellings are delivered
            (root / f"{name}{code}.sas7bdat").write_bytes(unpacked(content).replace(b"V00", column + code.encode()))


def unpacked(content: str) -> bytes:
    return zlib.decompress(base64.b85decode(content))


def knees(root: Path) -> None:
    """One picture of each of these subjects at every visit, with every ending: what a file is called does not matter."""
    (root / "ResizedImages").mkdir(parents=True)
    for ending, months in zip(ENDINGS, VISITS, strict=True):
        for name in (f"9000001_{months:02}_x_R", f"9000002_{months:02}_x_L", f"9000003_{months:02}_x_L"):
            picture(name).save(root / "ResizedImages" / (name + ending), "PNG")


def test_sas_tables_of_every_visit(tmp_path: Path) -> None:
    """The one kind of table that phantoms do not write."""
    knees(tmp_path)
    sas_tables(tmp_path)
    table = OAI().read(tmp_path)
    rows = table.rows.select("subject", "split", "months", "side", "site", "age", "grade").sort("subject", "months")
    first = [("9000001", "train", m, "R", "A", 61.0, 3) for m in VISITS]
    assert rows.rows() == first + [("9000002", "test", m, "L", "C", 54.5, 4) for m in VISITS]
    assert [p.sentence for p in table.problems] == ["7 images are left out: no age between 0 and 120 at that visit."]


@pytest.mark.parametrize("content", [b"", b"no SAS table at all", unpacked(SAS_CLINICAL)[:3000]])
def test_a_damaged_sas_table(tmp_path: Path, content: bytes) -> None:
    knees(tmp_path)
    sas_tables(tmp_path)
    (tmp_path / "AllClinical06.sas7bdat").write_bytes(content)
    with pytest.raises(InputError, match=r"AllClinical06\.sas7bdat: "):
        OAI().read(tmp_path)


def test_a_header_and_rows_that_do_not_end_alike(tmp_path: Path, usual: dict[str, Made]) -> None:
    """A comma at the end of the header alone, or of the rows alone."""
    known = usual["cxr14"][0]
    raw = shutil.copytree(known.folder.parent / "raw", tmp_path / "raw")
    table = raw / "Data_Entry_2017_v2020.csv"
    header, *lines = table.read_text().splitlines()
    for changed in ([header + ",", *lines], [header, *(line + "," for line in lines)]):
        table.write_text("\n".join(changed))
        assert conform(CXR14().read(raw).rows, "cxr")["age"].to_list() == known.manifest["age"].to_list()


def test_an_image_that_was_unpacked_twice(tmp_path: Path, usual: dict[str, Made]) -> None:
    raw = shutil.copytree(usual["cxr14"][0].folder.parent / "raw", tmp_path / "raw")
    shutil.copytree(raw / "images_001" / "images", raw / "images")
    with pytest.raises(InputError, match=r"two files for one image, images_001/images/0.*_000\.png and images/0"):
        CXR14().read(raw)


def test_the_cropped_copy_is_split_as_its_own_table_says(tmp_path: Path) -> None:
    """Both tables come with it; only the one without the missing images gives the published split by image."""
    write(dataclasses.replace(PHANTOMS["eyepacs"], copy="cropped"), tmp_path)
    listed = pl.read_csv(tmp_path / "trainLabels_cropped.csv")["image"].to_list()
    _, test = train_test_split(listed, test_size=0.2, random_state=11)
    rows = EyePACSByImage().read(tmp_path).rows
    assert {Path(path).stem for path in rows.filter(split="test")["path"]} == set(test)
    assert len(rows) == len(listed) == len(pl.read_csv(tmp_path / "trainLabels.csv")) - 1
