"""What a notebook gets: embeddings by run, rankings by seed, and the example of docs/python.md."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import marginlab
from marginlab.results import Results
from marginlab.values import InputError
from tests.report.synthetic import Synthetic, study, write_test_embeddings

PAGE = Path(__file__).parents[1] / "docs" / "python.md"
LABEL, MONTHS = np.repeat(np.arange(8), 3), np.tile([0.0, 12.0, 24.0], 8).astype(np.float32)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two folds per seed, test embeddings of D = 5 in all confirmation runs but one seed's."""
    root = tmp_path_factory.mktemp("space") / "workspace"
    folder = Synthetic(root / "studies" / "automargin-demo", study(seeds=2, folds=2, name="automargin-demo")).whole()
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((8, 5))
    for row in Results.open(folder).runs().filter(kind="confirmation").iter_rows(named=True):
        if (row["dataset"], row["arm"], row["seed_index"], row["fold"]) != ("knees", "fixed", 1, 1):
            x = centres[LABEL] + rng.standard_normal((24, 5))
            write_test_embeddings(folder / row["folder"], np.arange(24) + 100, LABEL, MONTHS, x)
    return root


def test_a_study_is_opened_by_name(workspace: Path, tmp_path: Path) -> None:
    assert marginlab.open(workspace, "automargin-demo").study.name == "automargin-demo"
    assert marginlab.open(str(workspace)).folder == workspace / "studies" / "automargin-demo"
    with pytest.raises(InputError, match="no study 'other'; there are automargin-demo"):
        marginlab.open(workspace, "other")
    with pytest.raises(InputError, match="no study was named; there are none"):
        marginlab.open(tmp_path)


def test_importing_marginlab_is_light() -> None:
    code = "import sys, marginlab; print([m for m in ('torch', 'polars', 'ray', 'mlflow') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_rankings_have_the_figures_of_the_study(workspace: Path) -> None:
    results = marginlab.open(workspace)
    found = results.rankings()
    places = [(r.dataset, r.arm, r.seed_index) for r in found]
    assert len(places) == 11 and ("knees", "fixed", 1) not in places  # a seed that lacks a fold's embeddings
    test = results.test().filter(pl.col("horizon").is_null())
    for r in found:
        said = test.filter(dataset=r.dataset, arm=r.arm, seed_index=r.seed_index, metric="test/map")["value"].item()
        assert r.ranking.map() == pytest.approx(said)
        assert r.queries["row"].to_list() == [100 + i for i in range(24) if i % 3] and len(r.gallery) == 8
        assert (r.gallery["months"] == 0).all()
    assert [r.seed_index for r in results.rankings(dataset="oai", arm="fixed")] == [0, 1]


def test_embeddings_are_those_of_the_runs_that_were_asked_for(workspace: Path) -> None:
    results = marginlab.open(workspace)
    one = results.embeddings("test", dataset="oai", arm="fixed", seed_index=0, fold=1)
    assert len(one) == 24 and one["embedding"].dtype == pl.Array(pl.Float32, 5)
    (folder,) = results.runs().filter(dataset="oai", arm="fixed", seed_index=0, fold=1, kind="confirmation")["folder"]
    kept = pl.read_parquet(results.folder / folder / "embeddings" / "test.parquet")
    assert one.select("row", "label", "months", "embedding").equals(kept)
    assert len(results.embeddings(kind="confirmation")) == (12 * 2 - 1) * 24
    for fails, says in (({"split": "train"}, "'test' or 'validation'"), ({"arms": "x"}, "Runs have no 'arms'")):
        with pytest.raises(InputError, match=says):
            results.embeddings(**fails)
    with pytest.raises(InputError, match="No run of automargin-demo .* has validation embeddings"):
        results.embeddings("validation")


def test_the_example_of_the_page_runs(workspace: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.chdir(workspace.parent)
    names: dict[str, Any] = {}
    exec("\n".join(re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.S)), names)
    assert names["best"]["trials"].to_list() == [3] * 6 and len(names["whole"]) == 6
    assert names["x"].shape == (2 * 2 * 24, 5) and names["margins"].columns[3:] == ["margin/beta", "margin/epsilon"]
    out = capsys.readouterr().out
    assert "oai automargin" in out and len(out.splitlines()) == 2 + 4
    html, saved = names["drawing"]._repr_html_(), Path("horizons.svg").read_text()
    assert "--arm-0: #0072b2" in html and "var(" not in saved and saved.startswith("<svg xmlns=")
