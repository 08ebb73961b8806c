from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from marginlab.report.two import render_two
from marginlab.results import Results
from marginlab.study import Comparison, Dataset, Search
from tests.report.synthetic import EPOCHS, Synthetic, edit_json, study


def printed(first: Results, second: Results) -> str:
    out = io.StringIO()
    Console(width=100, file=out, force_terminal=False).print(render_two(first, second))
    return out.getvalue()


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    changed = study(
        name="longer",
        seeds=2,
        search=Search(epochs_budget=24, max_epochs=EPOCHS, startup_trials=3),
        comparison=Comparison(contrast=("automargin", "fixed"), margin=0.02),
        arms=study().arms[:2],
    )
    return Results.open(Synthetic(tmp_path_factory.mktemp("longer"), changed).whole())


def test_answers_differences_and_figures(results, other):
    text = printed(results, other)
    assert max(map(len, text.splitlines())) <= 100
    assert "automargin is better than fixed" in text and "search.startup_trials: was 10, is 3" in text
    assert "comparison.margin: was 0.01, is 0.02" in text
    lines = [re.split(r"  +", line.strip()) for line in text.splitlines()]
    assert ["mAP", "all", "automargin", "0.920 ± 0.012 (3)", "0.910 ± 0.010 (2)", "+0.010"] in lines
    assert ["all", "triplet", "0.860 ± 0.006 (3)", "–"] in lines  # the second study has no such arm
    assert text.count("measured on phantoms") >= 3


def test_other_data_under_the_same_name_is_not_compared_silently(results, tmp_path):
    moved = Synthetic(tmp_path, study(name="moved"))
    edit_json(moved.folder / "study.json", data={**moved.plan.data, "oai": "f" * 16})
    text = " ".join(printed(results, Results.open(moved.folder)).split())
    assert "oai: other images or other splits. Their figures are not comparable." in text


def test_studies_without_a_common_dataset(results, tmp_path):
    apart = Synthetic(tmp_path, study(name="apart", datasets=[Dataset("other", root="/raw")]))
    assert "no dataset of the same name" in printed(results, Results.open(apart.folder))
