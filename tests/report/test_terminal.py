from __future__ import annotations

import io
import re
from types import SimpleNamespace

from rich.console import Console

from marginlab.report import print_answer
from marginlab.results import Results
from tests.report.synthetic import Synthetic, study

LINK = SimpleNamespace(
    command="marginlab ui --workspace /w", url="http://127.0.0.1:5000/#/x?k=1", search_url="http://127.0.0.1:5000/#/y"
)


def printed(results: Results, link=None, width: int = 100) -> str:
    out = io.StringIO()
    print_answer(Console(width=width, file=out, force_terminal=False), results, link)
    return out.getvalue()


def test_the_report_fits_100_columns_and_is_in_order(results):
    text = printed(results, LINK)
    assert max(map(len, text.splitlines())) <= 100
    order = [
        "Does AutoMargin match",
        "oai: automargin is better",
        "oai: test figures",
        "knees: test figures",
        "Searches",
        "Where time went",
    ]
    order += [
        "What this study cannot decide",
        "Open it in MLflow",
        "marginlab ui --workspace /w",
        LINK.url,
        LINK.search_url,
    ]
    places = [text.index(part) for part in order]
    assert places == sorted(places)


def test_the_headline_table_shows_the_hand_computed_figures(results):
    lines = [re.split(r"  +", line.strip()) for line in printed(results).splitlines()]
    assert ["all", "automargin", "0.920 ± 0.012", "0.820 ± 0.012", "0.890 ± 0.012", "0.870 ± 0.012", "3"] in lines
    assert ["24", "automargin", "0.770 ± 0.015", "0.670 ± 0.015", "0.740 ± 0.015", "0.720 ± 0.015", "3"] in lines
    assert ["automargin", "3", "1", "1", "0", "10/12", "0.510", "0.490 (−0.020)", "margin.k_delta = 4"] in lines
    assert ["a run was busy", "11 min 12 s", "84%"] in [line[-3:] for line in lines]


def test_phantoms_are_labelled_at_every_table(results):
    text = printed(results)
    assert text.count("measured on phantoms") >= 6  # the top, the answer, the dataset's table, searches, time, limits
    oai = text[text.index("oai: test figures") : text.index("knees: test figures")]
    assert "phantom" not in oai


def test_without_a_link_the_command_that_prints_links_is_named(results):
    assert f"marginlab ui --workspace {results.folder.resolve().parent.parent}" in printed(results, width=300)


def test_markup_in_a_question_is_not_obeyed(tmp_path):
    hostile = study(question="[bold red]is this[/] [link=http://evil]?")
    assert "[bold red]is this[/] [link=http://evil]?" in printed(Results.open(Synthetic(tmp_path, hostile).whole()))


def test_a_study_that_has_only_begun_is_reported_as_such(tmp_path):
    Synthetic(tmp_path)
    text = printed(Results.open(tmp_path))
    assert "no seed has been confirmed yet" in text and "What is missing" in text
