import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import GroupKFold

from marginlab.data.splits import FOLDS, leak_check, subject_folds, with_folds
from marginlab.values import InputError


def sklearn_folds(subjects):
    fold = np.empty(len(subjects), dtype=np.int8)
    for i, (_, rows) in enumerate(GroupKFold(FOLDS).split(subjects, groups=subjects)):
        fold[rows] = i
    return fold


def test_as_scikit_learn_where_no_two_subjects_have_equally_many_images():
    rng = np.random.default_rng(0)
    subjects = [f"{i:03}" for i in range(40) for _ in range(i + 1)]
    rng.shuffle(subjects)
    assert subject_folds(subjects).tolist() == sklearn_folds(subjects).tolist()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 14), min_size=FOLDS, max_size=40))
def test_fold_sizes_are_scikit_learns_whatever_the_ties(sizes):
    subjects = [str(i) for i, n in enumerate(sizes) for _ in range(n)]
    ours, theirs = (np.bincount(f(subjects), minlength=FOLDS) for f in (subject_folds, sklearn_folds))
    assert ours.tolist() == theirs.tolist()


def test_subjects_with_equally_many_images_come_in_the_order_of_their_identifiers():
    assert subject_folds(["f", "c", "a", "b", "e", "d", "c"]).tolist() == [1, 0, 1, 2, 4, 3, 0]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_no_subject_is_ever_on_two_sides(data):
    """Random datasets: whatever subjects, knees and visits there are, each subject has one split and one fold."""
    subjects = data.draw(st.lists(st.text("ab1", min_size=1), min_size=8, max_size=30, unique=True))
    test = set(data.draw(st.lists(st.sampled_from(subjects), min_size=1, max_size=3)))
    images = data.draw(st.lists(st.sampled_from(subjects), max_size=60)) + subjects
    rows = pl.DataFrame({"subject": images, "split": ["test" if s in test else "train" for s in images]})
    rows = with_folds(rows, "random")
    sides = rows.group_by("subject").agg(pl.col("split").n_unique(), pl.col("fold").n_unique())
    assert sides["split"].max() == sides["fold"].max() == 1
    assert (rows["fold"].is_null() == (rows["split"] == "test")).all()
    assert rows["fold"].drop_nulls().n_unique() == FOLDS


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_every_torn_subject_is_found(data):
    fold = data.draw(st.lists(st.integers(0, 4), min_size=2, max_size=20))
    subject = data.draw(st.lists(st.sampled_from("abcd"), min_size=len(fold), max_size=len(fold)))
    rows = pl.DataFrame({"subject": subject, "split": "train", "fold": fold})
    if len(set(zip(subject, fold, strict=True))) > len(set(subject)):
        with pytest.raises(InputError, match="put all images of a subject in one fold"):
            leak_check(rows, "random")
    else:
        leak_check(rows, "random")


def test_a_subject_in_both_splits():
    rows = pl.DataFrame({"subject": list("aabcdefg"), "split": ["train", "test"] + ["train"] * 6})
    with pytest.raises(InputError, match=r"raw: the subject a is in split train and split test \(1 such subjects\)"):
        with_folds(rows, "raw")


def test_too_few_subjects():
    with pytest.raises(InputError, match="the training split has 3 subjects; 5 folds need at least 5"):
        with_folds(pl.DataFrame({"subject": list("abc"), "split": "train"}), "raw")
    with pytest.raises(InputError, match="the test split is empty"):
        with_folds(pl.DataFrame({"subject": list("abcde"), "split": "train"}), "raw")
