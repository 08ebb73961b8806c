from __future__ import annotations

import json

from marginlab.declaration import redeclare
from marginlab.report.declared import declared
from marginlab.results import Results
from marginlab.study import Comparison
from tests.report.synthetic import Synthetic, study


def test_what_was_declared_and_that_three_seeds_confirm_nothing(results):
    said = declared(results)
    assert said[0].startswith("Declared beforehand: test mAP, automargin against fixed, differences down to −0.01")
    assert said[1].startswith("Exploratory: 3 seeds cannot reach") and len(said) == 2


def test_a_change_after_the_test_split_was_opened_comes_first(tmp_path):
    made = Synthetic(tmp_path)
    made.whole()
    changed = study(comparison=Comparison(contrast=("automargin", "fixed"), margin=0.03))
    assert redeclare(tmp_path, changed)
    said = declared(Results.open(tmp_path))
    assert "after the test split had been opened: margin was 0.01, is 0.03." in said[0]
    assert "down to −0.03" in said[1]
    assert json.loads((tmp_path / "study.json").read_text())["redeclared"][0]["test_opened"] is True


def test_without_a_contrast_nothing_is_said(tmp_path):
    Synthetic(tmp_path, study(comparison=Comparison()))
    assert declared(Results.open(tmp_path)) == []
