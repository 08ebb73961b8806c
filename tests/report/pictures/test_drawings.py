from __future__ import annotations

import re

import pytest

from marginlab.report.pictures import STYLE, Confirmed, Images, drawings, embedding_map, gallery
from marginlab.results import Results
from tests.report.pictures.made import small_study, write_packed, write_study
from tests.report.synthetic import Synthetic

DRAWN = [
    "First matches",
    "Worst queries",
    "CMC curves",
    "Map of embeddings",
    "Similarity of positive and negative pairs",
]
NOT = "Not drawn"


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    workspace = tmp_path_factory.mktemp("pictures")
    write_packed(workspace, "OaiPhantom v1")
    return write_study(workspace, small_study())


@pytest.fixture(scope="module")
def made(results):
    return drawings(results)["oai"]


def test_pictures_of_a_study_in_order_with_what_is_missing_last(results, made):
    assert [p.title for p in made] == [*DRAWN, NOT]
    assert all(p.panels for p in made[:-1]) and not made[-1].panels
    assert "Slices of the search: No trial has ended yet" in made[-1].caption
    assert "Importance of the searched parameters: Importance takes at least 20" in made[-1].caption
    assert not (results.folder / "optuna.db").exists()  # looking makes no tables


def test_pictures_share_no_id_and_load_nothing(made):
    page = "".join(svg for p in made for _, svg in p.panels)
    ids = re.findall(r'\bid="([^"]*)"', page)
    assert ids and len(ids) == len(set(ids))
    loaded = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert all(v.startswith(("#", "data:image/png;base64,")) for v in loaded)


def test_the_same_study_gives_the_same_pictures(results, made):
    again = Results.open(results.folder)
    confirmed = Confirmed.of(again, "oai")
    assert gallery.picture(again, confirmed, Images.of(again, "oai")) == made[0]
    (_, svg), (_, before) = embedding_map.picture(again, confirmed).panels[0], made[3].panels[0]
    assert re.sub(r"p\d+-", "", before) == svg


def test_images_of_people_are_shown_when_asked_for_alone(tmp_path):
    results = write_study(tmp_path, small_study(seeds=1, phantom=False), without=("two",))
    for path in results.folder.rglob("validation.parquet"):
        path.unlink()
    write_packed(tmp_path, None)
    made = drawings(results)["oai"]
    assert "First matches, Worst queries: Images of people are shown on request alone" in made[-1].caption
    assert not any("data:image" in panel for p in made for _, panel in p.panels)
    assert [p.title for p in drawings(results, galleries=True)["oai"]][:2] == DRAWN[:2]


def test_a_study_that_has_only_begun_has_sentences(tmp_path):
    Synthetic(tmp_path / "studies" / "demo", small_study())
    (only,) = drawings(Results.open(tmp_path / "studies" / "demo"))["oai"]
    assert only.title == NOT and not only.panels
    assert (
        "First matches, Worst queries, CMC curves, Map of embeddings: No seed has test embeddings yet." in only.caption
    )


def test_a_damaged_file_costs_its_pictures_alone(tmp_path):
    results = write_study(tmp_path, small_study(seeds=1), without=("two",))
    write_packed(tmp_path, "OaiPhantom v1")
    for path in results.folder.rglob("test.parquet"):
        path.write_bytes(b"damaged")
    made = drawings(results)["oai"]
    assert (
        [p.title for p in made] == [DRAWN[4], NOT]
        and "the file is damaged" in made[-1].caption
        and "CMC curves, " in made[-1].caption
    )


def test_the_style_has_light_and_dark():
    for variable in ("--right", "--wrong"):
        assert STYLE.count(f"{variable}: #") == 2
