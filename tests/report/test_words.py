from __future__ import annotations

import pytest

from marginlab.compare import Answer, Difference
from marginlab.report import words


def answer(verdict: str, difference: Difference, **changes) -> Answer:
    fields = {
        "dataset": "oai",
        "first": "auto",
        "second": "fixed",
        "metric": "test/map",
        "horizon": None,
        "margin": 0.01,
    }
    return Answer(**{**fields, "difference": difference, "verdict": verdict, **changes})


INTERVAL = Difference(5, 0.0012, 0.003, 0.0015, -0.003, 0.0054)


def test_an_answer_says_its_uncertainty():
    assert words.answer_sentence(answer("matches", INTERVAL)) == (
        "auto matches fixed in test mAP: auto minus fixed is +0.0012 (95% interval −0.0030 to +0.0054, 5 paired seeds); "
        "the interval lies above −0.01, the largest loss that was declared to make no difference."
    )


@pytest.mark.parametrize(("verdict", "side"), [("better", "above"), ("worse", "below")])
def test_better_and_worse_say_on_which_side_of_zero(verdict, side):
    sentence = words.answer_sentence(answer(verdict, INTERVAL, horizon=24))
    assert sentence.startswith(f"auto is {verdict} than fixed in test mAP at 24 months: ")
    assert sentence.endswith(f"the interval lies {side} zero.")


def test_undecided_says_what_would_decide():
    assert "about 34 seeds would decide it (80% power)" in words.answer_sentence(
        answer("undecided", INTERVAL, needed=34)
    )
    assert "more seeds alone would not decide it" in words.answer_sentence(answer("undecided", INTERVAL))


def test_one_seed_has_no_error_bar_and_no_seed_no_figure():
    assert words.answer_sentence(answer("undecided", Difference(1, 0.02))) == (
        "It is undecided how auto compares with fixed in test mAP: auto minus fixed is +0.0200 on the one seed that both have, "
        "and one seed has no error bar."
    )
    assert words.answer_sentence(answer("undecided", Difference(0))).endswith(
        "no seed has been confirmed for both yet."
    )


def test_numbers():
    assert words.measured(0.92, 0.01155) == "0.920 ± 0.012"
    assert words.measured(0.92, None) == "0.920"
    assert words.measured(None, None) == "–"
    assert words.number(-0.5, 1) == "−0.5"
    assert words.percent(0.125) == "12%" and words.percent(None) == "–"


@pytest.mark.parametrize(
    ("s", "text"),
    [
        (0.04, "0.0 s"),
        (99.94, "99.9 s"),
        (336.0, "5 min 36 s"),
        (5999.0, "99 min 59 s"),
        (7380.0, "2 h 03 min"),
        (None, "–"),
    ],
)
def test_seconds(s, text):
    assert words.seconds(s) == text
