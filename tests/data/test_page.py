"""The page of a packed dataset: what it says, what it does not say, and that it stands alone."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from marginlab.data.oai import OAI
from marginlab.data.packed import PackedDataset
from marginlab.data.page import contact_page, page, write_contact_sheet
from marginlab.data.readers import READERS
from marginlab.data.sources import SOURCES
from marginlab.data.store import prepare
from marginlab.values import type_tag
from tests.data.test_store import LONG


class Outline(HTMLParser):
    """Tags with their attributes, rows of tables, and the text as one line."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[list[str]] = []
        self.cell = False
        self.text = ""
        self.feed(html)
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
            self.cell = True

    def handle_endtag(self, tag: str) -> None:
        self.cell = self.cell and tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        self.text += data
        if self.cell:
            self.rows[-1][-1] += data.strip()


@pytest.fixture
def dataset(oai_folder: Callable[..., Path], tmp_path: Path) -> PackedDataset:
    """Ten subjects, both knees at months 0 and 12, one file broken, one that no reader knows."""
    root = oai_folder(subjects=LONG)
    sorted((root / "ResizedImages").iterdir())[0].write_bytes(b"broken")
    (root / "ResizedImages" / "SUBJECT-99-4f9c1d7ab2e86035_18_L.png").write_bytes(b"unused")
    return prepare(OAI(), root, tmp_path / "out", name="knees", size=16, crop=0, unreadable_limit=0.1)


def changed(dataset: PackedDataset, **info: Any) -> PackedDataset:
    return dataclasses.replace(dataset, info={**dataset.info, **info})


def test_it_counts_what_is_there(dataset: PackedDataset) -> None:
    seen = Outline(page(dataset))
    for words in ("39 images of 10 subjects at 20 visits, 16 × 16 pixels, grey", f"Fingerprint {dataset.fingerprint}"):
        assert words in seen.text
    parts = {row[0]: row[1:] for row in seen.rows if row and row[0] in ("train", "test", "all")}
    assert parts["test"] == ["12", "3", "6", "6", "6"]  # images, subjects, visits, gallery, queries
    assert parts["all"][0] == "39" and int(parts["train"][0]) == 27
    assert ["12", "6", "3", "6"] in seen.rows  # the horizon: queries, subjects, answerable
    assert ["C", "0", "0", "0", "0", "0", "0", "12", "12"] in seen.rows  # the test site
    assert {"Grades", "Sides", "Sites"} <= set(re.findall(r"<h3>([^<]*)</h3>", page(dataset)))


def test_it_says_what_was_left_out_by_number_alone(dataset: PackedDataset) -> None:
    html = page(dataset)
    text = Outline(html).text
    assert "1 file is left out: not named" in text
    assert "1 of 40 images could not be read (at most 10% may be)" in text
    assert re.search("the file is no PNG[^:]*: 1, record 0 ", text)
    for secret in ("SUBJECT", "4f9c1d7ab2e86035", "ResizedImages", str(dataset.folder), *dataset.manifest["subject"]):
        assert secret not in html


def test_neighbours_are_put_together(dataset: PackedDataset) -> None:
    report = json.loads((dataset.folder / "report.json").read_text())
    report["unreadable"] = [{"record": r, "reason": "the file is empty"} for r in (5, 1, 2, 3, 9)]
    (dataset.folder / "report.json").write_text(json.dumps(report))
    assert "the file is empty: 5, records 1–3, 5, 9" in Outline(page(dataset)).text


def test_it_stands_alone_in_light_dark_and_on_phones(dataset: PackedDataset) -> None:
    for html in (page(dataset), page(changed(dataset, phantom="OaiPhantom v1")), contact_page(dataset)):
        tags = Outline(html).tags
        assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in tags}
        loaded = [v for _, attrs in tags for k, v in attrs.items() if k in ("src", "href") and v]
        assert all(v.startswith("data:image/png;base64,") for v in loaded)
        assert "default-src 'none'" in html and 'name="viewport"' in html and "prefers-color-scheme: dark" in html
        for variable in set(re.findall(r"var\((--[a-z0-9-]+)\)", html)) - {"--type"}:
            assert html.count(f"{variable}: #") == 2, variable  # a value for light and one for dark


def test_images_of_people_are_on_no_page_but_the_contact_sheet(dataset: PackedDataset) -> None:
    restricted, phantom = page(dataset), page(changed(dataset, phantom="OaiPhantom v1"))
    assert "<img" not in restricted and "--contact-sheet" in restricted
    assert phantom.count("<img") == 12 and "Synthetic images (OaiPhantom v1)" in phantom  # 6 subjects, 2 visits each
    assert write_contact_sheet(dataset).name == "contact-sheet.html"
    assert (dataset.folder / "contact-sheet.html").read_text().count("<img") == 12
    assert "Images of people." in contact_page(dataset)


def test_terms_are_said_of_every_reader_that_ships(dataset: PackedDataset) -> None:
    for reader in READERS.values():
        html = page(changed(dataset, reader=type_tag(type(reader))))
        assert all(sentence in Outline(html).text for sentence in SOURCES[type_tag(type(reader))].terms)
        assert "check the current" in html and "Terms change" in html
    own = Outline(page(changed(dataset, reader="marginlab.data.table:Table"))).text
    assert "The terms are those under which you got the images" in own and "reader=Table(...)" in own
    assert "belong to nobody" in page(changed(dataset, phantom="OaiPhantom v1"))


def test_a_leak_and_nothing_to_look_for_are_warned_of(dataset: PackedDataset) -> None:
    sentence = "The test split leaks: 3 of its 4 subjects are also in the training split."
    report = json.loads((dataset.folder / "report.json").read_text())
    report["problems"].append(sentence.replace("3", "4"))  # before an image of one of them could not be read
    (dataset.folder / "report.json").write_text(json.dumps(report))
    leaky = Outline(page(changed(dataset, leak={"subjects": 3, "sentence": sentence}))).text
    assert leaky.count("The test split leaks") == 1 and leaky.index(sentence) < leaky.index("Packed dataset")
    assert "Nothing can be looked for" not in page(dataset)
    roleless = dataset.manifest.with_columns(role=pl.lit("other"))
    assert "Nothing can be looked for" in page(dataclasses.replace(dataset, manifest=roleless))


def test_names_are_escaped(dataset: PackedDataset) -> None:
    sites = dataset.manifest.with_columns(site=pl.lit("<script>x</script>"))
    assert "<script" not in page(dataclasses.replace(dataset, manifest=sites))


def test_of_very_many_sites_the_rarest_are_summed_up(dataset: PackedDataset) -> None:
    sites = pl.Series("site", [f"site {i:02}" for i in range(30)] + ["site 00"] * 9)
    rows = Outline(page(dataclasses.replace(dataset, manifest=dataset.manifest.with_columns(sites)))).rows
    assert [row[-1] for row in rows if row[0] == "site 00"] == ["10"]
    assert [row[-1] for row in rows if row[0] == "6 others"] == ["6"]
