from __future__ import annotations

import pytest

from marginlab.compare import answers
from marginlab.data.eyepacs import EyePACSByImage
from marginlab.report.limits import limits
from marginlab.results import Results
from marginlab.study import Comparison, Dataset, Search
from marginlab.tables import searches
from tests.report.synthetic import Synthetic, study


def said(results: Results) -> str:
    return "\n".join(limits(results, answers(results), searches(results)))


@pytest.mark.parametrize(
    "part",
    [
        "knees: measured on phantoms (synthetic images), says nothing about patients.",
        "Only automargin against fixed was declared beforehand",
        "Intervals rest on 3 seeds",
        "one and the same fold",
        "how far the answer would move with other subjects",
        "Each arm was searched once",
        "it was lower by up to 0.0200",
        "18 of 18 confirmation runs were best at their last epoch",
    ],
)
def test_the_small_study_says_what_it_cannot_decide(results, part):
    assert part in said(results)


def test_a_split_that_leaks_is_called_so(tmp_path):
    leaking = study(datasets=[Dataset("oai", root="x", reader=EyePACSByImage()), *study().datasets[1:]])
    text = said(Results.open(Synthetic(tmp_path, leaking).whole()))
    assert "oai: the split is by image, as published, and leaks" in text


def test_what_does_not_apply_is_not_said(tmp_path):
    only_real = study(
        datasets=study().datasets[:1],
        arms=study().arms[:2],
        search=Search(epochs_budget=12, max_epochs=4, replicates=2),
    )
    text = said(Results.open(Synthetic(tmp_path, only_real).whole()))
    assert "phantom" not in text and "declared beforehand" not in text and "searched once" not in text


def test_searches_that_never_got_to_the_model_are_named(tmp_path):
    made = Synthetic(tmp_path)
    made.whole()
    found = {k: {**v, "modelled": 0} for k, v in Results.open(tmp_path).searches.items()}
    made.summary(searches=found)
    assert "Of 6 searches, 6 ended before the model suggested a trial" in said(Results.open(tmp_path))


def test_without_a_contrast_the_tables_answer_nothing(tmp_path):
    results = Results.open(Synthetic(tmp_path, study(seeds=1, comparison=Comparison())).whole())
    assert "declared no contrast" in said(results) and "One seed has no error bar" in said(results)
