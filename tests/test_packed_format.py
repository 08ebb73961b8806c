"""docs/packed-format.md: its snippets run where MarginLab cannot be imported, and its tables name all there is."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
from PIL import Image

from marginlab.data import manifest as mf
from marginlab.data.packed import PackedDataset
from marginlab.data.store import prepare
from marginlab.data.table import Table

TEXT = (Path(__file__).parents[1] / "docs" / "packed-format.md").read_text()
SNIPPETS = re.findall(r"```python\n(.*?)```", TEXT, re.S)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> PackedDataset:
    """Twelve subjects with a first visit and one a year later; three are tested on."""
    home = tmp_path_factory.mktemp("format")
    lines = ["path,subject,months,split"]
    for i in range(24):
        Image.new("L", (20, 20), 10 * i).save(home / f"{i:02}.png")
        lines.append(f"{i:02}.png,p{i // 2},{12 * (i % 2)},{'test' if i >= 18 else 'train'}")
    (home / "table.csv").write_text("\n".join(lines))
    return prepare(Table(), home, home / "packed", name="mine", size=16, private=home / "private")


def section(title: str) -> list[str]:
    """First cells of the rows of the table below a heading, as they are between backticks."""
    part = TEXT.split(f"## {title}\n")[1].split("\n## ")[0]
    cells = (line.split("|")[1] for line in part.splitlines() if line.startswith("| `"))
    return [name for cell in cells for name in re.findall(r"`([^`]*)`", cell)]


def test_the_snippets_do_what_they_say_without_marginlab(dataset: PackedDataset) -> None:
    assert len(SNIPPETS) == 3
    code = "import sys\nsys.modules['marginlab'] = None\n" + "\n".join(SNIPPETS)
    code += """
assert batch.shape == (3, 1, 16, 16) and batch.dtype == np.float32 and abs(batch[1, 0, 0, 0] - (20 / 255 - 0.5) / 0.5) < 1e-6
assert (first == 0).all() and (images[rows, 0, 0, 0] == 10 * rows).all()
assert parts["len"].sum() == 24 and parts["subject"].sum() == 12
assert len(gallery) == len(queries) == 3 and horizons.rows() == [(12.0, 3)]
assert later.num_rows == 3 and people == 3
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=dataset.folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_all_columns_and_fields_are_there(dataset: PackedDataset) -> None:
    assert section("`manifest.parquet`") == list(mf.SCHEMA)
    types = re.findall(r"^\| `(\w+)` \| (\w+) \|", TEXT, re.M)
    assert {name: getattr(pl, kind) for name, kind in types} == mf.SCHEMA
    info = json.loads((dataset.folder / "dataset.json").read_text())
    assert set(section("`dataset.json`")) >= {*info, "checks"}
    for name in json.loads((dataset.folder / "report.json").read_text()):
        assert f"`{name}`" in TEXT
    assert {p.name for p in dataset.folder.iterdir()} <= set(re.findall(r"^\| `([\w.-]+)` \|", TEXT, re.M))


def test_the_array_is_as_large_as_it_is_said_to_be(dataset: PackedDataset) -> None:
    assert (dataset.folder / "images.npy").stat().st_size == 24 * 1 * 16**2 + 128
