from __future__ import annotations

import dataclasses
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import torch

from marginlab.report.pictures import gallery, worst
from marginlab.report.pictures.confirmed import Confirmed, Model, Seed
from marginlab.report.pictures.framed import Cell, arm_head, table
from marginlab.report.pictures.images import Images
from marginlab.values import InputError
from tests.report.pictures.made import RIGHT, model, small_study, write_packed, write_study


class Cells(HTMLParser):
    """The table's rows, a text and the images' attributes per cell."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.rows: list[list[tuple[str, dict]]] = []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append(("", {}))
        if tag == "img":
            self.rows[-1][-1] = (self.rows[-1][-1][0], dict(attrs))
        if tag == "br":
            self.handle_data(" ")

    def handle_data(self, data):
        if self.rows and self.rows[-1]:
            text, image = self.rows[-1][-1]
            self.rows[-1][-1] = (text + data, image)


@pytest.fixture
def images(tmp_path):
    return Images(write_packed(tmp_path, "OaiPhantom v1"))


def test_first_matches_by_hand():
    frame = gallery.matches({"one": model("one"), "two": model("two", RIGHT)}, [0, 1])
    rows = {(r["query"], r["arm"]): r for r in frame.iter_rows(named=True)}
    right, wrong = rows[11, "one"], rows[21, "one"]
    assert (right["months"], right["found"], right["right"], right["answer_rank"]) == (12, 10, True, 1)
    assert right["sim"] == right["answer_sim"] == pytest.approx(np.cos(np.deg2rad(10)))
    assert (wrong["months"], wrong["found"], wrong["right"]) == (24, 10, False)
    assert wrong["sim"] == pytest.approx(np.cos(np.deg2rad(15)))
    assert (wrong["answer"], wrong["answer_rank"]) == (20, 2)
    assert wrong["answer_sim"] == pytest.approx(np.cos(np.deg2rad(25)))
    assert (rows[21, "two"]["found"], rows[21, "two"]["right"]) == (20, True)


def test_frames_are_green_and_ticked_or_orange_and_crossed(images):
    frame = gallery.matches({"one": model("one"), "two": model("two", RIGHT)}, [0, 1])
    heads, queries, one, two = Cells(gallery.drawing(frame, images, ["one", "two"])).rows
    assert [text for text, _ in heads] == ["", "query 1 12 months", "query 2 24 months"]
    assert [image["src"] for _, image in queries[1:]] == [images.uri(11), images.uri(21)]
    assert one[0][0] == "● one" and two[0][0] == "■ two"
    assert [(text, image["class"], image["src"]) for text, image in one[1:]] == [
        ("✓ 0.98", "right", images.uri(10)),
        ("✗ 0.97right: rank 2", "wrong", images.uri(10)),
    ]
    assert "wrong" in one[2][1]["alt"] and "rank 2, similarity 0.91" in one[2][1]["alt"]
    assert [image["class"] for _, image in two[1:]] == ["right", "right"]
    assert all(image["alt"] for _, image in queries[1:] + one[1:] + two[1:])


def many(right: list[bool], months: list[int]) -> Model:
    """Query i is of subject i and looks for gallery image i; where it is wrong it lies at another subject's."""
    n = len(right)
    at = np.eye(n, dtype=np.float32)
    found = np.array([at[i] if ok else at[(i + 1) % n] + 0.5 * at[i] for i, ok in enumerate(right)])
    label, rows = np.tile(np.arange(n), 2), np.arange(2 * n)
    when = np.array([0] * n + months, dtype=np.float32)
    embeddings = torch.nn.functional.normalize(torch.from_numpy(np.concatenate([at, found])))
    return Model(Seed("a", 0, 0, ()), rows, label, when, embeddings, rows[n:], rows[:n], 1)


def test_queries_spread_over_horizons_and_every_second_one_tells_the_arms_apart():
    months = [12, 12, 12, 24, 24, 24, 36, 36, 36]
    first = many([True] * 9, months)
    second = many([True, False, True] * 3, months)
    queries, differ = gallery.chosen([first, second], n=6, seed=1)
    assert sorted(set(np.array(months)[queries])) == [12, 24, 36] and len(set(queries)) == 6
    assert queries == sorted(queries)
    assert differ >= 3 and differ == sum(q in (1, 4, 7) for q in queries)
    assert (queries, differ) == gallery.chosen([first, second], n=6, seed=1)


def test_fewer_queries_than_places_are_all_shown_once():
    assert gallery.chosen([model()], n=8) == ([0, 1, 2], 0)


def test_a_query_without_a_right_answer_is_not_chosen():
    m = dataclasses.replace(model(), label=np.array([0, 0, 1, 7, 2, 2]))
    assert gallery.chosen([m], n=8)[0] == [0, 2]
    with pytest.raises(InputError, match="No query"):
        gallery.chosen([dataclasses.replace(m, label=np.arange(6))])


def test_arms_that_saw_other_images_are_not_set_side_by_side(tmp_path):
    confirmed = Confirmed.of(write_study(tmp_path, small_study(seeds=1)), "oai")
    other = dataclasses.replace(confirmed.first["two"], rows=np.arange(6))
    confirmed.first["two"] = other
    with pytest.raises(InputError, match="of two are of other images than those of one"):
        gallery.comparable(confirmed)


def test_the_caption_counts_and_names_the_arm_that_is_missing(tmp_path, images):
    results = write_study(tmp_path, small_study(seeds=1), without=("two",))
    picture = gallery.picture(results, Confirmed.of(results, "oai"), images)
    assert "the first match is right for one 67%." in picture.caption
    assert "Not shown: two" in picture.caption and "of seed 0" in picture.caption
    assert len(Cells(picture.panels[0][1]).rows) == 3


def test_the_worst_query_with_its_nearest_wrong_and_right_answers(images):
    frame = worst.worst(model(), n=1)
    assert frame.row(0, named=True) == {
        **{"query": 21, "value": 0.5, "wrong": 10, "wrong_rank": 1, "right": 20, "right_rank": 2},
        "months": 24,
    }
    heads, query, wrong, right = Cells(worst.drawing(frame, images)).rows
    assert heads[1][0] == "query 1 24 months" and query[1][0] == "AP 0.50"
    assert (wrong[1][0], wrong[1][1]["class"], wrong[1][1]["src"]) == ("✗ rank 1", "wrong", images.uri(10))
    assert (right[1][0], right[1][1]["class"], right[1][1]["src"]) == ("✓ rank 2", "right", images.uri(20))


def test_the_worst_queries_are_those_of_the_first_arm_of_the_contrast(tmp_path, images):
    results = write_study(tmp_path, small_study(seeds=1), without=("one",))
    with pytest.raises(InputError, match="one has no seed"):
        worst.picture(results, Confirmed.of(results, "oai"), images)


def test_no_identifier_and_no_row_is_shown(images):
    frame = gallery.matches({"one": model()}, [0, 1, 2])
    text = re.sub(
        r'src="[^"]*"', "", gallery.drawing(frame, images, ["one"]) + worst.drawing(worst.worst(model()), images)
    )
    assert not {"10", "11", "20", "21", "30", "31"} & set(re.findall(r"\d+", text))


def test_names_are_escaped():
    hostile = "<script>/\"'&"
    html = table([hostile], [(arm_head(0, hostile), [Cell(hostile, hostile, True, hostile, hostile)])])
    assert "<script>" not in html and html.count("&lt;script&gt;") == 6
    assert html.count('"') == html.count('="') * 2
