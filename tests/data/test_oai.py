import base64
import zlib

import pytest
from PIL import Image

from marginlab.data.oai import OAI
from marginlab.data.raw import conform
from marginlab.values import InputError

# Two SAS files of three rows, written with ReadStat: ID (text), V00SITE; and ID (number), V00AGE with one missing.
SAS_ENROLLEES = "c-muNK!8K98WT2)2%g_NiGzXjxM7ckynvvw5`(cZBa<N`M2QFk12ZFvxG|%$F@uN*g90-n%$#7yU<Ef%A6FO05XWHG5CvR-fdByMhpB69%8%Ysa^Dd~V<;AYU`8}yOFaV<14Ca^pUk|{3M6r3JwpRM16@NyGXp(CLp?)u<0>r7;>}DDe2~3o&oJ1*FuM8~yYBo$b|=Fq7zLwX6pVsVFbYP&C>RB!U=)mkQ80+WOlZFq9b96EGMIQ7xPa6R9tc;18CBf@sJH~0{tPY%9l?Yut^yTzfeAo6>_0dmv<{m19;mntns^&j+zd_J4Jz({<{mZz;%LS&SQ>zUp@JiXVWi*;VHhhojV78=FbYP&C>RB!U|4{EzyE{5fa!;5|E~n)OTijnK*-3z1m~gJ@CT|(1I;uJ5W&I(p<!(r7Sx6qRO^34yG;dZj|Kxfnt6YrY7G!VBIt8D;JKa<*8opo!!FFgAlNg+71fYGsAjN0X?7aLC=WYo7{S_gY-sH~HZ(snqPY*9{~t{qE1Ei1v>0VX^CvnVns5lFoL@w$`}v=;lsMGDHz0uI4OH+Q2tf1)Sb9K{7c_w6HCXeX8Hf4k=E8C&yxSmvDt`|xo%|nR@j<KpD5-!EE&dqM;tj^<M&t9M@i}PbQx15U0-9Dw*uw*6%MfWZ3(%#E7^UbQ_%t{(?w|n!0BSwj+5"
SAS_CLINICAL = "c-muNK!8K98WT2)2%g_NiGzXjxM7ckynvvw5`(cZBa<N`M2QFk12ZFvxG|%$F@uN*g90-n%$#7yU<Ef%A6FO05XWHG5CvR-fdByMhpB6xo*%uX<h~<}#!xH(!Hj6amU;#z28O<-KACx?6-eU7dWHsi2D*lZW(InOhI)qR##LCD#haNR_#k`F-(;|ZVRZE~cHQ}h>`sPJFbYP&C>RB!U=)mkQ7{Td!6+C7qhJt$nb3YKI@rq&WiatFZ~>_sJP@u1Gpf1+P;m(~{TW;kI)VvRTm>rb0uz9C*ne<BXdN{1Jy3BQH1Rg5xEY$b8&uo@%{^=c#L<ia0fi2&L`Xlr!4IU(0nT^u2JsW%{EI*8M^n-$7zLwX6pVsVFx0@m-~Yj2!1P13|5t+YrC^OOAY^1<g7Z*q_yg6Yfo2*9h+tua&`5k_0M+^*(QZ?L+M~h1hGyPhs9FPrkO=x*4tTC7#5KSZ*su#TFmQBtMKk0Nsu?U$nw>^5%EOKtMlj#Ap|$ha(EP}V=00@(e>8QhXzEzeVw4fhpXhvO!XcP)ei5ne=YPsl;!p$MfB=#=P{DT~0MQ>{=>bh%&;XLx1fYCo9Ok2&D}|h=kPU!>TC{ZXe}u&ct@@*+0!Fm>gYh}h_}plGUNk-j&3wuMFH=C%>Ii#yz-$>JZDs+wlo6xE{tag_;|>}y002iT-f{"


def small(path):
    Image.new("L", (8, 8)).save(path)


def write_by_hand(root):
    """Three subjects, official spellings: 'code: word' values, mixed case, tables in subfolders, extra columns."""
    images = root / "ResizedImages"
    images.mkdir(parents=True)
    for name in (
        "9000001_00_a_b_R.png",
        "9000001_00_a_b_L.jpg",
        "9000001_24_a_L.tif",
        "9000002_00_L.jpeg",
        "9000003_00_x_R.png",
        "9000004_00_x_R.png",  # not an enrollee
        "9000001_18_x_R.png",  # no visit is at month 18
        "readme.txt",
    ):
        small(images / name) if name != "readme.txt" else (images / name).write_text("hello")
    (root / "General_ASCII").mkdir()
    (root / "General_ASCII" / "Enrollees.txt").write_text(
        "ID|VERSION|V00SITE|P02SEX\n9000001|9|A|1: Male\n9000002|9|C|2: Female\n9000003|9|B|.\n"
    )
    (root / "General_ASCII" / "AllClinical00.txt").write_text(
        "ID|V00AGE|V00WOMTSL\n9000001|61|0\n9000002|54.5|\n9000003|.: Missing Form|3\n"
    )
    (root / "allclinical03.csv").write_text("VERSION,id,v03age\n1,9000001,63\n")
    (root / "kxr_sq_bu00.txt").write_text(
        "ID|READPRJ|SIDE|V00XRKL\n9000001|15|1: Right|.: Missing\n9000001|42|1: Right|3\n9000001|15|2: Left|0\n"
    )
    return root


def test_values_worked_out_by_hand(tmp_path):
    table = OAI().read(write_by_hand(tmp_path / "raw"))
    rows = conform(table.rows, "oai").select(
        "path", "subject", "split", "months", "side", "site", "age", "grade", "flip"
    )
    folder = "ResizedImages/"
    assert rows.rows() == [
        (folder + "9000001_00_a_b_L.jpg", "9000001", "train", 0.0, "L", "A", 61.0, 0, False),
        (folder + "9000001_00_a_b_R.png", "9000001", "train", 0.0, "R", "A", 61.0, 3, True),
        (folder + "9000001_24_a_L.tif", "9000001", "train", 24.0, "L", "A", 63.0, None, False),
        (folder + "9000002_00_L.jpeg", "9000002", "test", 0.0, "L", "C", 54.5, None, False),
    ]
    assert (table.crop, table.channels, table.mean, table.std) == (700, 1, (0.49961,), (0.30885,))


def test_what_is_left_out_is_reported_and_named_only_in_the_items(tmp_path):
    problems = OAI().read(write_by_hand(tmp_path / "raw")).problems
    assert [(p.sentence, p.items) for p in problems] == [
        (
            "2 files are left out: not named <ID>_<months>_..._<L|R>, with months among 0, 12, 24, 36, 48, 72, 96.",
            ("9000001_18_x_R.png", "readme.txt"),
        ),
        ("There is no table kxr_sq_bu03: images at month 24 have no grade.", ()),
        ("1 image is left out: no site (V00SITE).", ("ResizedImages/9000004_00_x_R.png",)),
        ("1 image is left out: no age between 0 and 120 at that visit.", ("ResizedImages/9000003_00_x_R.png",)),
    ]


def test_another_site_may_be_the_test_split(tmp_path):
    rows = OAI(test_site="A").read(write_by_hand(tmp_path / "raw")).rows
    assert dict(zip(rows["subject"], rows["split"], strict=True)) == {"9000001": "test", "9000002": "train"}


def test_sas_tables(tmp_path):
    (tmp_path / "ResizedImages").mkdir()
    for subject in ("9000001", "9000002", "9000003"):
        small(tmp_path / "ResizedImages" / f"{subject}_00_L.png")
    (tmp_path / "enrollees.sas7bdat").write_bytes(zlib.decompress(base64.b85decode(SAS_ENROLLEES)))
    (tmp_path / "allclinical00.sas7bdat").write_bytes(zlib.decompress(base64.b85decode(SAS_CLINICAL)))
    rows = OAI().read(tmp_path).rows.sort("subject")
    assert rows.select("subject", "site", "age", "split").rows() == [
        ("9000001", "A", 61.0, "train"),
        ("9000002", "C", 54.5, "test"),
    ]


@pytest.mark.parametrize(
    ("missing", "sentence"),
    [
        ("General_ASCII/Enrollees.txt", r"raw: the table enrollees \(.txt, .csv or .sas7bdat\) is missing"),
        ("General_ASCII/AllClinical00.txt", "the table allclinical00 .* is missing"),
        ("allclinical03.csv", "the table allclinical03 .* is missing"),
    ],
)
def test_a_missing_table(tmp_path, missing, sentence):
    root = write_by_hand(tmp_path / "raw")
    (root / missing).unlink()
    with pytest.raises(InputError, match=sentence):
        OAI().read(root)


def test_a_missing_folder_of_images(tmp_path):
    with pytest.raises(InputError, match="the folder ResizedImages with the knee images is missing"):
        OAI().read(tmp_path)
    (tmp_path / "ResizedImages").mkdir()
    with pytest.raises(InputError, match="no image is named <ID>_<months>_"):
        OAI().read(tmp_path)


def test_a_missing_column_or_an_empty_table(tmp_path):
    root = write_by_hand(tmp_path / "raw")
    (root / "allclinical03.csv").write_text("ID,V03BMI\n9000001,25\n")
    with pytest.raises(InputError, match=r"allclinical03\.csv: the column V03AGE is missing"):
        OAI().read(root)
    (root / "allclinical03.csv").write_text("ID,V03AGE\n")
    with pytest.raises(InputError, match=r"allclinical03\.csv: the table has no rows"):
        OAI().read(root)


def test_a_table_that_is_there_twice(tmp_path):
    root = write_by_hand(tmp_path / "raw")
    (root / "enrollees.txt").write_text("ID|V00SITE\n9000001|B\n")
    with pytest.raises(InputError, match=r"enrollees\.txt is there more than once"):
        OAI().read(root)
