"""Each link that ``marginlab ui`` prints, opened: does it show what it says? MLflow does not document what the links rely on."""

from __future__ import annotations

import re

import pytest

from tests.browser.conftest import ARMS, SEEDS, TRIALS

pytestmark = pytest.mark.browser


def link(site, beginning):
    (url,) = [url for what, url in site.links.items() if what.startswith(beginning)]
    return url


def test_every_link_is_there(site):
    assert list(site.links) == [
        "AutoMargin against FixedMargin on oai, confirmation runs",
        "all 8 trials on oai, axis by axis",
        "the curves of one run: oai ada/automargin trial 03",
        "the champion on oai",
        "the study: what was asked and answered, and all runs",
        "the report",
    ]


def test_automargin_against_fixed(site, browser):
    text = browser.open(
        link(site, "AutoMargin against"),
        "automargin-against-fixed",
        lambda t: "6 matching runs" in t and "test/map" in t,
    )
    groups = re.findall(r"Group: (\w+)\s+(\d+)", text)
    assert groups == [("AutoMargin", str(SEEDS)), ("FixedMargin", str(SEEDS))]
    assert "confirmation seed" not in text  # the groups are folded
    for chart in ("val/map", "test/map", "margin/epsilon", "margin/beta"):
        assert chart in text
    assert browser.errors() == []


def test_parallel_coordinates_keep_every_run(site, browser):
    n = len(ARMS) * TRIALS  # one was pruned; another one failed and has no place on the axes
    text = browser.open(
        link(site, "all"), "every-trial-axis-by-axis", lambda t: f"{n} matching runs" in t and "best/val_map" in t
    )
    for axis in ("final/epsilon", "final/beta", "lr"):
        assert axis in text
    assert "margin.k_delta" not in text  # only one of the arms has it: its axis would lose the other
    assert browser.plotted() == n
    assert browser.errors() == []


def test_the_curves_of_one_run(site, browser):
    text = browser.open(
        link(site, "the curves"), "one-trials-curves", lambda t: "1 matching run" in t and "train/loss" in t
    )
    assert re.search(r"oai ada/automargin trial 03\s+\(4\)", text)
    for metric in ("val/map", "margin/epsilon", "train/sim_positive"):
        assert metric in text
    assert browser.errors() == []


def test_the_champion_and_its_card(site, browser):
    text = browser.open(link(site, "the champion"), "champion", lambda t: "Version 1" in t and "champion" in t)
    for words in (
        "tracked-oai",
        "ada/automargin on oai",
        "Measured on phantoms",
        "Intended use",
        "must not be used for",
    ):
        assert words in text
    for section in ("Data", "Protocol", "How it was chosen", "Figures", "Limits", "Loading"):
        assert section in text
    assert browser.errors() == []


def test_the_study(site, browser):
    text = browser.open(link(site, "the study"), "study", lambda t: "Question." in t and "Child runs" in t)
    for words in ("Does it?", "Answer. oai: ada/automargin matches ada/fixed.", "oai ada/fixed default seed 0 fold 0"):
        assert words in text
    assert browser.errors() == []


def test_the_report(site, browser):
    text = browser.open(
        link(site, "the report"),
        "report",
        lambda t: "report.html" in t and browser.driver.find_elements("tag name", "iframe"),
    )
    assert "headline.csv" in text
    browser.driver.switch_to.frame(browser.driver.find_element("tag name", "iframe"))
    try:
        assert "The answer" in browser.text()
    finally:
        browser.driver.switch_to.default_content()


def test_a_run_with_its_model_and_a_picture_of_its_embeddings(site, browser):
    (folder,) = [f for f in site.runs if "automargin/r0/confirmation-02" in f]
    at = f"{site.url}/#/experiments/1/runs/{site.runs[folder]}"
    text = browser.open(
        f"{at}?workflowType=machine_learning", "run", lambda t: "Datasets" in t and "Best validation" in t
    )
    for words in (
        "oai ada/automargin confirmation seed 2 fold 0",
        "seed that no search used",
        "margin_policy",
        "marginlab replay",
    ):
        assert words in text
    assert "oai ada-automargin confirmation seed 2 fold 0" in text  # the model of its best weights
    browser.open(
        f"{at}/artifacts/embeddings/validation.svg?workflowType=machine_learning",
        "embeddings",
        lambda t: (
            "validation.svg" in t and browser.driver.find_elements("css selector", "img[src^='blob:'],img[src*='svg']")
        ),
    )
    assert browser.errors() == []
