"""Looking for a text in whatever a program has written: as bytes, and decoded from Parquet, SQLite and archives."""

from __future__ import annotations

import gzip
import sqlite3
import zipfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import polars as pl


def holding(needles: list[str], root: Path, without: tuple[Path, ...] = ()) -> list[str]:
    """The files and folders below root, ``without`` left out, that hold or are named after one of the needles in any case."""
    wanted = [n.lower() for n in needles]
    found = []
    for path in sorted(root.rglob("*")):
        if any(path.is_relative_to(w) for w in without):
            continue
        texts = [path.name.encode(), *(contents(path) if path.is_file() else ())]
        if any(_holds(text.lower(), wanted) for text in texts):
            found.append(str(path.relative_to(root)))
    return found


def _holds(text: bytes, wanted: list[str]) -> bool:
    return any(n.encode(code) in text for n in wanted for code in ("utf-8", "utf-16-le", "utf-16-be"))


def contents(path: Path) -> Iterator[bytes]:
    """What a file holds: its bytes, and what these mean."""
    raw = path.read_bytes()
    yield raw
    if raw.startswith(b"PAR1"):
        frame = pl.read_parquet(path)
        yield frame.select(pl.exclude(pl.List, pl.Array, pl.Binary)).write_csv().encode()
    elif raw.startswith(b"SQLite format 3"):
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:  # with what is in its -wal file
            tables = database.execute("select name from sqlite_master where type = 'table'").fetchall()
            for (table,) in tables:
                cells = (c for row in database.execute(f'select * from "{table}"') for c in row)
                yield b"\n".join(c if isinstance(c, bytes) else str(c).encode() for c in cells)
    elif raw.startswith(b"\x1f\x8b"):
        yield gzip.decompress(raw)
    elif raw.startswith(b"PK\x03\x04"):
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                yield name.encode()
                yield archive.read(name)
