"""Raw folders with everything in them that goes wrong: a run ends with a report, whoever reads."""

from __future__ import annotations

import json
import struct
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from marginlab.data.cxr14 import CXR14
from marginlab.data.decode import Decoder
from marginlab.data.eyepacs import EyePACS
from marginlab.data.oai import OAI
from marginlab.data.raw import Reader
from marginlab.data.store import prepare
from marginlab.data.table import Table
from marginlab.values import InputError

PEOPLE = [
    f"Jörg Groß {i:02}-5e1d0b7f93a4" for i in range(20)
]  # spaces, umlauts, and long enough not to occur by chance


def picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (20, 20), (200, 90, 40)).save(path)


def oai(root: Path) -> tuple[Reader, list[Path]]:
    files = [root / "ResizedImages" / f"{p}_{m:02}_ä ö_L.png" for p in PEOPLE for m in (0, 12)]
    sites = [f"{p}|{'C' if i % 4 == 0 else 'A'}\n" for i, p in enumerate(PEOPLE)]
    root.mkdir()
    (root / "enrollees.txt").write_text("ID|V00SITE\n" + "".join(sites))
    for code in ("00", "01"):
        (root / f"allclinical{code}.txt").write_text(f"ID|V{code}AGE\n" + "".join(f"{p}|60\n" for p in PEOPLE))
    return OAI(), files


def cxr14(root: Path) -> tuple[Reader, list[Path]]:
    names = [(i, p, f"{p} {v}.png") for i, p in enumerate(PEOPLE) for v in (0, 1)]
    root.mkdir()
    rows = [f"{name},{name[-5]},{p},{40 + int(name[-5])},PA\n" for _, p, name in names]
    (root / "Data_Entry_2017.csv").write_text(
        "Image Index,Follow-up #,Patient ID,Patient Age,View Position\n" + "".join(rows)
    )
    for file, test in (("test_list.txt", True), ("train_val_list.txt", False)):
        (root / file).write_text("".join(f"{name}\n" for i, _, name in names if (i % 4 == 0) == test))
    return CXR14(), [root / "images" / name for _, _, name in names]


def eyepacs(root: Path) -> tuple[Reader, list[Path]]:
    files = [root / "train" / f"{p}_{side}.jpeg" for p in PEOPLE for side in ("left", "right")]
    root.mkdir()
    (root / "trainLabels.csv").write_text("image,level\n" + "".join(f"{f.stem},{i % 5}\n" for i, f in enumerate(files)))
    return EyePACS(test=0.4), files


def table(root: Path) -> tuple[Reader, list[Path]]:
    files = [root / "Bilder zu Köln" / f"{p} {v}.png" for p in PEOPLE for v in (0, 1)]
    rows = [f"{f.relative_to(root)},{f.stem[:-2]},{12 * int(f.stem[-1])}\n" for f in files]
    root.mkdir()
    (root / "table.csv").write_text("path,subject,months\n" + "".join(rows))
    return Table(test=0.4), files


def bomb(path: Path) -> None:
    """A PNG of two hundred bytes that says it is 40,000 pixels wide and high."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", 40_000, 40_000, 8, 0, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(10_000))))


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def elsewhere(path: Path) -> None:
    picture(path.parents[2] / "elsewhere.png")
    path.unlink()
    path.symlink_to(path.parents[2] / "elsewhere.png")


def mislabelled(path: Path) -> None:
    """An image of another format than its name says: it is read all the same."""
    Image.new("RGB", (20, 20), (200, 90, 40)).save(path, "TIFF")


FAULTS: list[tuple[Callable[[Path], Any], str | None]] = [
    (truncated, "the image is truncated or damaged"),
    (lambda path: path.write_bytes(b""), "the file is empty"),
    (lambda path: path.write_text("image,level\n10_left,0\n"), "the file is no PNG, JPEG, TIFF or DICOM image"),
    (bomb, "the image has more than 89478485 pixels"),
    (elsewhere, "the path points outside the raw folder"),
    (mislabelled, None),
]


@pytest.mark.parametrize("layout", [oai, cxr14, eyepacs, table])
def test_every_reader_survives_and_reports(tmp_path: Path, layout: Callable[[Path], Any]) -> None:
    reader, files = layout(tmp_path / "raw")
    for file in files:
        picture(file)
    for (spoil, _), file in zip(FAULTS, files[1::3], strict=False):
        spoil(file)
    expected = Counter(why for _, why in FAULTS if why)
    if layout in (cxr14, table):  # the others know an image by its file alone
        files[-1].unlink()
        expected["the file does not exist"] += 1
    out = tmp_path / "out"
    packed = prepare(reader, tmp_path / "raw", out, name="x", size=8, crop=0, unreadable_limit=0.5, workers=1)
    report = json.loads((out / "report.json").read_text())
    assert Counter(line["reason"].split(" (")[0] for line in report["unreadable"]) == expected
    assert len(packed.manifest) == len(packed.pixels) == len(files) - expected.total()
    assert packed.manifest["subject"].n_unique() == len(PEOPLE)
    flat = np.asarray(packed.pixels).reshape(len(packed.pixels), -1)
    assert int(np.ptp(flat.astype(int), axis=0).max()) <= 3  # the mislabelled one, too, is what it was
    published = b"".join(p.read_bytes() for p in out.iterdir())
    for secret in ("5e1d0b7f93a4", "Groß", "Jörg", "Köln", "ä ö"):
        assert secret.encode() not in published
    assert b"5e1d0b7f93a4" not in str(packed.manifest.rows()).encode()


def test_a_thousand_bad_images_are_a_thousand_lines(tmp_path: Path) -> None:
    reader, files = table(tmp_path / "raw")
    for file in files:
        picture(file)
    with open(tmp_path / "raw" / "table.csv", "a") as lines:
        lines.writelines(f"Bilder zu Köln/gone {i}.png,nobody {i},0\n" for i in range(1000))

    def run(limit: float) -> Any:
        return prepare(reader, tmp_path / "raw", tmp_path / "out", name="x", size=8, unreadable_limit=limit, workers=1)

    with pytest.raises(InputError, match="images cannot be read, more than the limit of 90.00%"):
        run(0.9)
    assert len(run(0.97).manifest) == len(files)
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert [line["reason"] for line in report["unreadable"]] == ["the file does not exist"] * 1000
    assert len({line["record"] for line in report["unreadable"]}) == 1000


def test_paths_that_no_file_can_have(tmp_path: Path) -> None:
    """None of them ends a run."""
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    (tmp_path / "folder.png").mkdir()
    decoder = Decoder(tmp_path, 8, 1, None)
    for path in ("nul\0.png", "x" * 5000, "/".join(["long"] * 2000), "loop.png"):
        assert decoder((path, False)) in (
            "the path leads nowhere, or into a folder that may not be read",
            "the file does not exist",
        )
    assert decoder(("folder.png", False)) == "the file does not exist"
    assert decoder(("/etc/passwd", False)) == decoder(("a/../../b", False)) == "the path points outside the raw folder"


def test_names_in_tables_that_lead_outside(tmp_path: Path) -> None:
    reader, files = cxr14(tmp_path / "raw")
    for file in files:
        picture(file)
    picture(tmp_path / "secret.png")
    entry, listed = tmp_path / "raw" / "Data_Entry_2017.csv", tmp_path / "raw" / "train_val_list.txt"
    entry.write_text(entry.read_text() + "../../secret.png,0,evil,40,PA\n")
    listed.write_text(listed.read_text() + "../../secret.png\n")
    prepare(reader, tmp_path / "raw", tmp_path / "out", name="x", size=8, unreadable_limit=0.1)
    report = (tmp_path / "out" / "report.json").read_text()
    assert "the path points outside the raw folder" in report and "secret" not in report and "evil" not in report
