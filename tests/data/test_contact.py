from __future__ import annotations

from typing import Any

from marginlab.data.contact import SUBJECTS, VISITS, chosen
from tests.data.test_summary import manifest


def image(subject: str, months: float | None, side: str | None = "L", grade: int | None = None) -> tuple[Any, ...]:
    return (subject, months, side, "test", None, 60.0, grade)


def test_subjects_with_several_visits_are_drawn_by_lot() -> None:
    once = [image(f"once {i}", 0.0) for i in range(50)]
    often = [image(f"often {i}", 12.0 * v) for i in range(20) for v in range(3)]
    frame = manifest(once + often)
    strips = chosen(frame, 1)
    assert len(strips) == SUBJECTS and all(len(s.rows) == 3 and min(s.rows) >= 50 for s in strips)
    assert strips == chosen(frame, 1) != chosen(frame, 2)
    assert [s.title for s in strips] == [f"Subject {i} (test split), left" for i in range(1, 7)]
    assert strips[0].words == ("first visit", "12 months", "24 months")
    renamed = manifest([(i[0][::-1], *i[1:]) for i in once + often])
    assert [s.rows for s in chosen(renamed, 1)] == [s.rows for s in strips]


def test_a_visit_is_shown_once_and_from_one_side() -> None:
    one = [image("a", 12.0, "R"), image("a", 0.0, "R", 2), image("a", 0.0, "L"), image("a", 0.0, "R"), image("a", None)]
    (strip,) = chosen(manifest(one), 0)
    assert strip.title == "Subject 1 (test split), right"
    assert strip.rows == (1, 0) and strip.words == ("first visit, grade 2", "12 months")


def test_of_many_visits_the_first_the_last_and_some_between() -> None:
    (strip,) = chosen(manifest([image("a", float(m)) for m in range(30)]), 0)
    assert len(strip.rows) == VISITS and strip.rows[0] == 0 and strip.rows[-1] == 29
    assert list(strip.rows) == sorted(strip.rows)


def test_without_months_all_images_of_a_subject_are_shown() -> None:
    both = [image(s, None, side, 1) for s in "ab" for side in "LR"]
    first, second = chosen(manifest(both), 0)
    assert (first.rows, second.rows) == ((0, 1), (2, 3))
    assert first.title == "Subject 1 (test split)" and first.words == ("left, grade 1", "right, grade 1")


def test_a_subject_of_a_split_that_leaks_is_in_both() -> None:
    one = [("a", None, side, split, fold, None, 1) for side, split, fold in (("L", "train", 0), ("R", "test", None))]
    assert chosen(manifest(one), 0)[0].title == "Subject 1 (in both splits)"
