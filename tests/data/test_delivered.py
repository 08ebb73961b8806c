"""Every form in which the providers deliver the same data ends in the same records."""

from __future__ import annotations

import base64
import csv
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from marginlab.data.cxr14 import CXR14
from marginlab.data.decode import Decoder
from marginlab.data.oai import ENDINGS, OAI, VISITS
from marginlab.data.raw import conform
from marginlab.values import InputError
from tests.data.test_dicom import dataset
from tests.data.test_oai import SAS_CLINICAL, SAS_ENROLLEES

# ID, SIDE and V00XRKL, all numbers: knees R 3 and L 0 of 9000001, L missing and then 4 of 9000002. Written with ReadStat.
SAS_GRADES = "c-muNK!8K98WT2)2%g_NiGzXjxM7ckynvvw5`(cZBa<N`M2QFk12ZFvxG|%$F@uN*g90-n%$#7yU<Ef%A6FO05XWHG5CvR-fdByMhpC%tRQT>j$$du{jiFcof*H|-E%gjc3=DlueKPY(E0DyE^$ZR440H_*%?$Jm4fPDsjjOOQi#Ibt@Im(8tdZ-6VRZE~cHQ}h>`sPJFbYP&C>RB!U=)mkQ7{Td!6+C7qhJt$nb3YKIuK`vGMM-oxPjCS9tc;18CBf@sJH~0{tPY%9l?Yut^gJHfC)f5>~A<Bv<aH{0;sqTns^3O+yYHp11j!-=AIWE*u_^65Jxi}?1c`kL}>s1gFS@ia6lDDG0p)){Nj&#tl|s;4x=e@6pVsVFbYP&C_sRJzyE{5kkt>-{$B;kmx0pEK*-1dYgGOJ&&+_@VEO~qXMtuOxOu|D$iRWd7eM191E^8|72qN&P}?*ZSirOn13Q{Mf1!Girb0x}=W)REJRz<Do-Paw!JaOzVFm^fLEb(L*gOLB2Md&Dr%`(0VMh%=SV*v;wddH-{K<&sK6L(nG<B?K>R8d@n-R^Q=zM6hBABjz5vlIyf6CJ7Py^q90FsYT!FM14x6q+{UNm_@10|Gx3kweO(an`XH%|an-XATU{2yWQL96~KsQ{MGn9%rKXnY<tK0g|tgJwSEKuU8WNcQl6*)l}h%mQ>NBStB@0!bcc(0~B|rH1WQ"


def tables(root: Path, kind: str) -> None:
    """Those of all seven visits: subjects 9000001 (site A, 61 years), 9000002 (C, 54.5) and 9000003 without an age."""
    enrollees = [("ID", "V00SITE"), ("9000001", "A"), ("9000002", "C"), ("9000003", "B")]
    with_column(root / "enrollees", kind, enrollees, SAS_ENROLLEES, "00")
    for code in VISITS.values():
        letter = "v" if code in ("03", "08") else "V"  # both spellings are delivered
        ages = [("ID", f"{letter}{code}AGE"), ("9000001", "61"), ("9000002", "54.5"), ("9000003", "")]
        with_column(root / f"AllClinical{code}", kind, ages, SAS_CLINICAL, code)
        grades = [
            ("ID", "SIDE", "READPRJ", f"{letter}{code}XRKL"),
            ("9000001", "1: Right", "15", "3: 3"),
            ("9000001", "2", "15", "0"),
            ("9000002", "2: Left", "15", ".: Missing"),
            ("9000002", "2: Left", "42", "4"),
        ]
        with_column(root / f"kxr_sq_bu{code}", kind, grades, SAS_GRADES, code)


def with_column(path: Path, kind: str, rows: list[tuple[str, ...]], sas: str, code: str) -> None:
    if kind == "sas7bdat":
        content = zlib.decompress(base64.b85decode(sas))
        name = b"V00SITE" if path.name == "enrollees" else b"V" + code.encode()
        path.with_suffix(".sas7bdat").write_bytes(content.replace(b"V00", name[:3]))
    else:
        with open(path.with_suffix(f".{kind}"), "w", newline="") as file:
            csv.writer(file, delimiter="|" if kind == "txt" else ",").writerows(rows)


def knees(root: Path) -> list[str]:
    """One picture per subject and visit, in every image format in turn; the same pixels in all of those without loss."""
    (root / "ResizedImages").mkdir(parents=True)
    pixels = np.arange(64, dtype=np.uint8).reshape(8, 8)
    names = []
    for i, months in enumerate(VISITS):
        for subject, side in (("9000001", "R"), ("9000002", "L"), ("9000003", "L")):
            name = f"{subject}_{months:02}_x_{side}{ENDINGS[i]}"
            if ENDINGS[i] in (".dcm", ".dicom"):
                dataset(pixels).save_as(root / "ResizedImages" / name, enforce_file_format=True)
            else:
                Image.fromarray(pixels).save(root / "ResizedImages" / name)
            names.append(name)
    return names


@pytest.mark.parametrize("kind", ["txt", "csv", "sas7bdat"])
def test_tables_of_every_kind_and_visit_and_images_of_every_kind(tmp_path: Path, kind: str) -> None:
    names = knees(tmp_path)
    tables(tmp_path, kind)
    table = OAI().read(tmp_path)
    rows = conform(table.rows, "oai").select("path", "subject", "split", "months", "side", "site", "age", "grade")
    expected = []
    for name in sorted(names):
        subject, months, _, side = name.split(".")[0].split("_")
        if subject != "9000003":
            first = subject == "9000001"
            known = (
                ("train", float(months), side, "A", 61.0, 3) if first else ("test", float(months), side, "C", 54.5, 4)
            )
            expected.append((f"ResizedImages/{name}", subject, *known))
    assert len(VISITS) == len(ENDINGS) and rows.rows() == expected
    (lost,) = table.problems
    assert lost.sentence.startswith("7 images are left out: they have no age")
    decoder = Decoder(tmp_path, 8, 1, None)
    for path in rows["path"]:
        exact = np.arange(64).reshape(1, 8, 8)
        pixels = decoder((path, False))
        assert not isinstance(pixels, str) and np.abs(pixels.astype(int) - exact).max() <= 4 * (".jp" in path)


@pytest.mark.parametrize(
    "content", [b"", b"no SAS table at all", zlib.decompress(base64.b85decode(SAS_CLINICAL))[:3000]]
)
def test_a_damaged_sas_table(tmp_path: Path, content: bytes) -> None:
    knees(tmp_path)
    tables(tmp_path, "sas7bdat")
    (tmp_path / "AllClinical06.sas7bdat").write_bytes(content)
    with pytest.raises(InputError, match=r"AllClinical06\.sas7bdat: "):
        OAI().read(tmp_path)


NEWER = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Sex,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]"
)
OLDER = NEWER.replace("Sex", "Gender") + ","
PICTURES = [  # patient, follow-up, age, view
    (1, 0, 57, "PA"),
    (1, 1, 58, "AP"),
    (2, 0, 30, "PA"),
    (3, 0, 414, "PA"),
    (3, 1, 40, "AP"),
]


def chests(root: Path, edition: str, folders: str) -> Path:
    root.mkdir(exist_ok=True)
    age = {"2020": "{}", "2017": "{:03}Y", "2017 bare": "{}"}[edition]
    end = "" if edition == "2020" else ","
    lines = [NEWER if edition == "2020" else OLDER]
    for i, (patient, visit, years, view) in enumerate(PICTURES):
        name = f"{patient:08}_{visit:03}.png"
        lines.append(f"{name},Mass|Nodule,{visit},{patient},{age.format(years)},F,{view},2682,2749,0.143,0.143{end}")
        place = root / folders.format(i + 1)
        place.mkdir(parents=True, exist_ok=True)
        grey = Image.new("L", (8, 8), 10 * i)
        (grey.convert("RGBA") if i % 2 else grey).save(place / name)  # some of the real ones are
    (root / f"Data_Entry_2017{'_v2020' if edition == '2020' else ''}.csv").write_text("\n".join(lines) + "\n")
    (root / "train_val_list.txt").write_text("00000001_000.png\n00000001_001.png\n00000002_000.png\n")
    (root / "test_list.txt").write_text("00000003_000.png\r\n00000003_001.png\r\n")
    return root


@pytest.mark.parametrize("edition", ["2020", "2017", "2017 bare"])
@pytest.mark.parametrize("folders", ["images", "images_{:03}/images", "images_{:03}"])
def test_both_editions_and_every_way_to_unpack_the_images(tmp_path: Path, edition: str, folders: str) -> None:
    table = CXR14().read(chests(tmp_path / "raw", edition, folders))
    rows = (
        conform(table.rows, "cxr").sort("subject", "months").select("subject", "split", "months", "view", "age", "role")
    )
    assert rows.rows() == [
        ("1", "train", 0.0, "PA", 57.0, None),
        ("1", "train", 12.0, "AP", 58.0, None),
        ("2", "train", 0.0, "PA", 30.0, None),
        ("3", "test", 0.0, "AP", 40.0, None),
    ]
    assert [p.sentence for p in table.problems] == [
        "1 images are left out: they have no age between 0 and 120.",
        "1 image files are not used.",
    ]
    decoder = Decoder(tmp_path / "raw", 8, 1, None)
    shades = {int(np.max(decoder((path, False)))) for path in table.rows["path"]}  # type: ignore[arg-type]
    assert shades == {0, 10, 20, 40}


def test_a_header_and_rows_that_do_not_end_alike(tmp_path: Path) -> None:
    """A comma at the end of the header alone, or of the rows alone."""
    for head, end in ((NEWER, ","), (OLDER, "")):
        root = chests(tmp_path / f"raw{len(end)}", "2020", "images")
        table = root / "Data_Entry_2017_v2020.csv"
        rows = table.read_text().splitlines()[1:]
        table.write_text("\n".join([head, *(row + end for row in rows)]))
        assert CXR14().read(root).rows["age"].to_list() == [57, 58, 30, 40]


def test_an_image_that_was_unpacked_twice(tmp_path: Path) -> None:
    root = chests(tmp_path / "raw", "2020", "images")
    (root / "images_001" / "images").mkdir(parents=True)
    Image.new("L", (8, 8)).save(root / "images_001" / "images" / "00000001_000.png")
    with pytest.raises(InputError, match=r"two files for one image, images_001/images/0.*_000\.png and images/0"):
        CXR14().read(root)
