from __future__ import annotations

import re
from html.parser import HTMLParser
from types import SimpleNamespace

import pytest

from marginlab.report import write_report
from marginlab.report.html import page
from marginlab.results import Results
from marginlab.study import Comparison, Confirmation
from tests.report.synthetic import Synthetic, edit_json, study

HOSTILE = """<script>alert(1)</script>"'&<img src=x onerror=alert(2)>"""
VOID = {"meta", "link", "br", "img", "hr", "input"}


class Outline(HTMLParser):
    """Tags in order, whether they balance, and the text of headings and table rows."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict]] = []
        self.headings: list[str] = []
        self.rows: list[list[str]] = []
        self.text = ""
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag in VOID:
            return
        self.open.append(tag)
        if tag in ("h1", "h2", "h3"):
            self.headings.append("")
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.text += data
        if {"h1", "h2", "h3"} & set(self.open):
            self.headings[-1] += data
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data


@pytest.fixture(scope="module")
def html(results):
    return page(results)


def test_the_page_is_in_the_promised_order(html):
    outline = Outline(html)
    sections = [h.partition(" knees:")[0] for h in outline.headings if not h.startswith(("oai", "knees"))]
    assert sections == [
        "Does AutoMargin match the best fixed margin?",
        "Against cost",
        "Test figures",
        "How sure the answer is",
        "Curves",
        "What was retrieved, and what was searched",
        "Searches",
        "What each search may vary",
        "Beside the paper",
        "Where time went",
        "What this study cannot decide",
        "Open it in MLflow",
    ]
    oai = [h for h in outline.headings if h.startswith("oai")]
    assert oai == [
        "oai: Best validation mAP so far against what it cost",
        "oai",
        "oai: automargin against fixed",
        "oai: Validation mAP over epochs",
        "oai: Margins over epochs",
        "oai: Test mAP by horizon",
        "oai: Not drawn",
    ]
    assert (
        outline.text.index("match the best") < outline.text.index("oai: better.") < outline.text.index("Test figures")
    )


def test_the_tables_hold_the_hand_computed_figures(html):
    rows = Outline(html).rows
    assert ["all", "automargin", "0.920 ± 0.012", "0.820 ± 0.012", "0.890 ± 0.012", "0.870 ± 0.012", "3"] in rows
    assert ["", "fixed", "0.760 ± 0.006", "0.660 ± 0.006", "0.730 ± 0.006", "0.710 ± 0.006", "3"] in rows
    assert ["oai", "automargin", "3", "1", "1", "0", "10/12", "0.510", "0.490 (−0.020)", "margin.k_delta = 4"] in rows
    assert ["search + confirmation", "a run was busy", "11 min 12 s", "84%"] in rows


def test_every_title_that_holds_phantoms_says_so(html):
    outline = Outline(html)
    assert outline.text.index("measured on phantoms") < outline.text.index("Study demo")
    for heading in outline.headings:
        of_phantoms = heading.startswith(("knees", "Searches", "Where time went", "How sure"))
        assert of_phantoms == ("measured on phantoms (synthetic images), says nothing about patients" in heading), (
            heading
        )


def test_the_page_needs_nothing_from_anywhere(html):
    outline = Outline(html)
    assert not {"script", "link", "img", "iframe", "object"} & {tag for tag, _ in outline.tags}
    loaded = [
        v for _, attrs in outline.tags for k, v in attrs.items() if k in ("src", "href", "xlink:href", "data") and v
    ]
    assert all(v.startswith("#") for v in loaded)
    assert "@import" not in html and not re.findall(r"url\((?!#)", html)
    assert "default-src 'none'" in html
    assert len(html) < 2_000_000


def test_the_page_serves_light_dark_and_phones(html):
    assert "prefers-color-scheme: dark" in html
    assert 'name="viewport"' in html
    for variable in set(re.findall(r"var\((--[a-z0-9-]+)\)", html)) - {"--type"}:
        assert html.count(f"{variable}: #") == 2, variable  # a value for light and one for dark


def test_the_same_study_gives_the_same_page(html, results):
    assert page(Results.open(results.folder)) == html
    ids = re.findall(r'\bid="([^"]*)"', html)
    assert len(ids) == len(set(ids))


def test_figures_are_drawn_for_every_dataset(html):
    labels = [a["aria-label"] for tag, a in Outline(html).tags if tag == "svg" and "aria-label" in a]
    assert len(labels) == 2 * (2 + 3 + 2 + 1)
    assert sum("Validation mAP" in x for x in labels) == 6


def test_how_sure_the_answer_is_said(html):
    """oai's differences are 0.010, 0.015, 0.020: sd 0.005, so t = 0.015 / (0.005 / sqrt 3) = 5.196 at 2 degrees, p = 0.0351."""
    text = " ".join(Outline(html).text.split())
    assert "Of no difference: p = 0.035, 0.070 after Holm over the study's datasets" in text
    assert "It holds for these test subjects" in text and "each arm was searched once" in text


def test_published_defaults_have_rows_of_their_own(tmp_path):
    """One arm's default has won, so it has the winner's row alone."""
    made = Synthetic(tmp_path, study(confirmation=Confirmation(seeds=3, folds=1, defaults=True)))
    made.whole()
    for key in made.plan.searches():
        for task in made.plan.defaults(key) if key.arm != "triplet" else []:
            made.confirmation(task)
    rows = Outline(page(Results.open(tmp_path))).rows
    assert [
        "",
        "fixed, published default",
        "0.905 ± 0.009",
        "0.805 ± 0.009",
        "0.875 ± 0.009",
        "0.855 ± 0.009",
        "3",
    ] in rows
    assert not [r for r in rows if r[1:2] == ["triplet, published default"]]


def test_hostile_text_stays_text(tmp_path):
    made = Synthetic(tmp_path, study(question=HOSTILE))
    made.whole()
    results = Results.open(tmp_path)
    folder = results.folder / results.runs().filter(kind="confirmation")["folder"][0]
    edit_json(folder / "result.json", state="failed", reason=HOSTILE)
    found = {k: {**v, "params": {**v["params"], HOSTILE: HOSTILE}} for k, v in results.searches.items()}
    made.summary(searches=found, steps={HOSTILE: 1.0, "search": 1.0})
    link = SimpleNamespace(command=HOSTILE, url="javascript:alert(3)", search_url=f"http://x/{HOSTILE}")
    html = page(Results.open(tmp_path), link)
    outline = Outline(html)
    assert not {"script", "img"} & {tag for tag, _ in outline.tags}
    assert not [attrs for _, attrs in outline.tags if any(k.startswith("on") for k in attrs)]
    assert not [a for _, a in outline.tags if (a.get("href") or "").startswith("javascript")]
    assert outline.text.count(HOSTILE) >= 5  # title, heading, reason or parameters, step, command


def test_a_study_that_has_only_begun_and_one_of_a_single_seed_have_pages(tmp_path):
    Synthetic(tmp_path / "begun")
    text = Outline(page(Results.open(tmp_path / "begun"))).text
    assert "No seed has been confirmed yet." in text and "This study is not complete." in text
    single = study(seeds=1, comparison=Comparison(contrast=("automargin", "fixed")))
    text = Outline(page(Results.open(Synthetic(tmp_path / "single", single).whole()))).text
    figures = text[text.index("Test figures") : text.index("Curves")]
    assert "one seed has no error bar" in text and "±" in figures and " ± 0" not in figures


def test_write_report_writes_the_page_and_the_tables(results, tmp_path):
    link = SimpleNamespace(
        command=None, url="https://mlflow.example/#/experiments/1", search_url="https://mlflow.example/#/2"
    )
    written = write_report(results, tmp_path / "report", link)
    assert written == tmp_path / "report" / "report.html"
    assert sorted(p.name for p in written.parent.iterdir()) == ["latex", "report.html", "tables"]
    assert (written.parent / "tables" / "headline.csv").exists() and (written.parent / "latex" / "answer.tex").exists()
    assert ("a", {"href": link.url, "rel": "noreferrer"}) in Outline(written.read_text()).tags
