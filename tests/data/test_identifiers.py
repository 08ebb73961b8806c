"""Personal data stays home: what ``prepare`` writes is searched, decoded, for identifiers long enough not to occur by chance."""

from __future__ import annotations

import gzip
import json
import secrets
import sqlite3
import zipfile
from pathlib import Path

import polars as pl
import pytest

from marginlab.data.page import write_contact_sheet
from marginlab.data.store import prepare
from marginlab.data.table import Table
from tests.data.conftest import picture
from tests.searching import holding


def test_the_search_finds_what_is_compressed_or_in_a_database(tmp_path: Path) -> None:
    needle = secrets.token_hex(16)
    frame = pl.DataFrame({"a": [needle] * 100, "b": range(100), "c": [[1.0, 2.0]] * 100})
    frame.write_parquet(tmp_path / "a.parquet", compression="zstd")
    (tmp_path / "b.gz").write_bytes(gzip.compress(f"-{needle}-".encode() * 9))
    with zipfile.ZipFile(tmp_path / "c.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("inside", needle * 9)
    with sqlite3.connect(tmp_path / "d.db") as database:
        database.execute("create table t (x text)")
        database.execute("insert into t values (?)", (json.dumps({"name": needle}),))
    (tmp_path / "e.log").write_bytes(needle.upper().encode("utf-16"))
    (tmp_path / needle).mkdir()
    (tmp_path / "innocent.txt").write_text(needle[:16])
    names = {"a.parquet", "b.gz", "c.zip", "d.db", "e.log", needle}
    assert set(holding([needle], tmp_path)) == names
    assert set(holding([needle], tmp_path, without=(tmp_path / "a.parquet", tmp_path / needle))) == names - {
        "a.parquet",
        needle,
    }


@pytest.mark.parametrize("label", ["subject", "subject-side"])
def test_no_identifier_of_a_table_leaves_for_the_packed_folder(tmp_path: Path, private_home: Path, label: str) -> None:
    root = tmp_path / "raw"
    root.mkdir()
    people = [secrets.token_hex(16) for _ in range(12)]
    files, lines = [], ["path;subject;date;side;split;diagnosed by"]
    for i, person in enumerate(people):
        for day in ("2019-05-31", "2021-02-03"):
            files.append(f"{secrets.token_hex(16)} ä.png")
            picture(i, day).save(root / files[-1])
            split = "test" if i < 4 else "train"
            lines.append(f"{files[-1]};{person};{day};L;{split};{secrets.token_hex(16)}")
    (root / files[3]).write_bytes(b"broken")
    (root / "people.csv").write_text("\n".join(lines))
    dataset = prepare(
        Table("people.csv"), root, tmp_path / "out", name="mine", size=16, label=label, unreadable_limit=0.1
    )
    write_contact_sheet(dataset)
    strangers = [line.rpartition(";")[2] for line in lines[1:]]  # a column that was not asked for
    needles = [*people, *(f.partition(" ")[0] for f in files), *strangers, "2019-05-31", str(root)]
    assert holding(needles, tmp_path, without=(root, private_home)) == []
    assert holding(people, private_home) == [f"{dataset.fingerprint}.json"]
    assert holding([files[0].partition(" ")[0]], root) == sorted([files[0], "people.csv"])
