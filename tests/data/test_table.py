from __future__ import annotations

import polars as pl
import pytest
from PIL import Image

from marginlab.data.store import prepare
from marginlab.data.table import DAYS_PER_MONTH, Table
from marginlab.values import InputError

HEAD = "path,subject,months,side,split\n"


def written(folder, text: str, name: str = "table.csv"):
    (folder / name).write_text(text, encoding="utf-8")
    return folder


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_columns_are_found_whatever_separates_them(tmp_path, separator):
    text = "\ufeffPath, Subject ,months,grade,flip,remark\na b.png,Ü-1,0,2,yes,x\nc.png,Ü-1,11.5,,,y\n"
    table = Table().read(written(tmp_path, text.replace(",", separator)))
    rows = table.rows.drop("split")
    assert rows.to_dicts() == [
        {"path": "a b.png", "subject": "Ü-1", "months": 0.0, "grade": 2, "flip": True},
        {"path": "c.png", "subject": "Ü-1", "months": 11.5, "grade": None, "flip": False},
    ]


def test_parquet_and_a_day_instead_of_months(tmp_path):
    """Months from days by hand: 2020 is a leap year of 366 days."""
    frame = pl.DataFrame(
        {"path": ["a", "b", "c"], "subject": [7, 7, 8], "date": ["2020-01-01", "2021-01-01", "1999-12-31"]}
    )
    frame.write_parquet(tmp_path / "t.parquet")
    rows = Table("t.parquet").read(tmp_path).rows
    assert rows["subject"].to_list() == ["7", "7", "8"]
    assert rows["months"].to_list() == pytest.approx([0.0, 366 / DAYS_PER_MONTH, 0.0])


def test_subjects_are_drawn_whole_and_stay_where_they_are(tmp_path):
    def rows(n):
        return (
            Table()
            .read(written(tmp_path, HEAD.replace(",split", "") + "".join(f"{i}.png,s{i // 2},0,L\n" for i in range(n))))
            .rows
        )

    few, many = rows(400), rows(2000)
    assert many[:400].equals(few)
    assert (many.group_by("subject").agg(pl.col("split").n_unique())["split"] == 1).all()
    share = (many["split"] == "test").mean()
    assert 0.15 < share < 0.25  # 1,000 subjects, four standard errors


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("subject,months\n1,0\n", r"the column 'path' is missing; there are subject, months"),
        ("path,months\na,0\n", r"the column 'subject' is missing"),
        ("path,subject\na,1\n", r"neither months nor date"),
        ("path,subject,months\na,1,0\nb,,0\n", r"row 2: the field 'subject' is empty"),
        ("path,subject,months\na,1,0\nb,1,soon\n", r"row 2: the field 'months' must be a number, not 'soon'"),
        ("path,subject,months\na,1,inf\n", r"row 1: the field 'months' must be a number, not 'inf'"),
        ("Path,path,subject,months\na,a,1,0\n", r"the table cannot be read: .*path"),
        ("path,subject,months,grade\na,1,0,2.5\n", r"row 1: the field 'grade' must be a whole number, not '2.5'"),
        ("path,subject,months,flip\na,1,0,perhaps\n", r"row 1: the field 'flip' must be true or false"),
        ("path,subject,date\na,1,31.5.2019\n", r"row 1: the field 'date' must be a day such as 2019-05-31"),
        ("", r"cannot be read"),
    ],
)
def test_bad_tables_end_in_a_sentence(tmp_path, text, said):
    with pytest.raises(InputError, match=said):
        Table().read(written(tmp_path, text))


def test_files_that_are_no_tables_end_in_a_sentence(tmp_path):
    whole = tmp_path / "t.parquet"
    pl.DataFrame({"path": ["a"], "subject": ["1"], "months": [0.0]}).write_parquet(whole)
    for content in (whole.read_bytes()[:-9], b"PAR1", b"", b"path,subject,months\na,1,0\n"):
        whole.write_bytes(content)
        with pytest.raises(InputError, match=r"t\.parquet: the table cannot be read"):
            Table("t.parquet").read(tmp_path)
    for content in (
        "path,subject,months\nä,Jürgen,0\n".encode("latin-1"),
        b"\0\1\2",
        b"path,subject,months\na,1,0,5\n",
    ):
        (tmp_path / "t.csv").write_bytes(content)
        with pytest.raises(InputError, match=r"t\.csv: the (table cannot be read|column 'path' is missing)"):
            Table("t.csv").read(tmp_path)


def test_bad_settings_end_in_a_sentence(tmp_path):
    with pytest.raises(InputError, match="There is no table"):
        Table("other.csv").read(tmp_path)
    for wrong in ({"test": 1.0}, {"channels": 2}, {"channels": 3, "mean": (0.5, 0.5)}):
        with pytest.raises(InputError, match=r"Table\."):
            Table(**wrong)


def test_a_table_becomes_a_packed_dataset(tmp_path):
    """In colour, with a file that is missing and one outside the folder: both are left out and reported."""
    raw = tmp_path / "raw"
    raw.mkdir()
    lines = []
    for i in range(24):
        Image.new("RGB", (20, 20), (10 * i, 0, 255 - i)).save(raw / f"eye {i}.png")
        lines.append(f"eye {i}.png,p{i // 2},{12 * (i % 2)},{'LR'[i % 2]},{'test' if i >= 18 else 'train'}")
    lines += ["gone.png,p0,24,L,train", "../secret.png,p0,36,L,train"]
    written(raw, HEAD + "\n".join(lines) + "\n", "mine.csv")
    packed = prepare(
        Table("mine.csv", channels=3),
        raw,
        tmp_path / "packed",
        name="eyes",
        size=16,
        unreadable_limit=0.2,
        private=tmp_path,
    )
    assert (len(packed.manifest), packed.channels) == (24, 3)
    assert packed.manifest["role"].value_counts(sort=True)["role"].to_list() in (
        ["gallery", "query"],
        ["query", "gallery"],
    )
    report = (packed.folder / "report.json").read_text()
    assert "the file does not exist" in report and "outside the raw folder" in report and "secret" not in report
