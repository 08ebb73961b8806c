import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import GroupKFold

from marginlab.data.manifest import SCHEMA, label, role, validate
from marginlab.data.raw import conform
from marginlab.data.splits import FOLDS, leak, leak_check, subject_folds, with_folds
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


@st.composite
def datasets(draw: st.DrawFn) -> pl.DataFrame:
    """Random records: subjects with any number of images, sides and months (or none), in any order; a split of subjects."""
    names = st.text("ab1 _ü-", min_size=1, max_size=4)
    subjects = draw(st.lists(names, min_size=8, max_size=25, unique=True))
    test = set(draw(st.lists(st.sampled_from(subjects), min_size=1, max_size=3)))
    image = st.tuples(st.sampled_from(subjects), st.sampled_from(["L", "R", None]), st.sampled_from([0, 12, 96, None]))
    images = draw(st.lists(image, max_size=50)) + [(s, None, None) for s in subjects]
    images = draw(st.permutations(images))
    records = [(f"{i}.png", *image, "test" if image[0] in test else "train") for i, image in enumerate(images)]
    return pl.DataFrame(records, ["path", "subject", "side", "months", "split"], orient="row", infer_schema_length=None)


@settings(max_examples=30, deadline=None)
@given(datasets(), st.randoms())
def test_no_subject_is_ever_on_two_sides(records, random):
    """Each subject has one split and one fold, whatever order the records come in; the manifest made of them passes."""
    rows = with_folds(conform(records, "random"), "random")
    sides = rows.group_by("subject").agg(pl.col("split").n_unique(), pl.col("fold").n_unique())
    assert sides["split"].max() == sides["fold"].max() == 1
    assert (rows["fold"].is_null() == (rows["split"] == "test")).all()
    assert rows["fold"].drop_nulls().n_unique() == FOLDS
    manifest = rows.with_row_index("row").with_columns(role("subject"), label=label("subject"), channels=1)
    validate(manifest.select(pl.col(n).cast(t) for n, t in SCHEMA.items()), "random")
    order = random.sample(range(len(records)), len(records))
    again = with_folds(conform(records[order], "random"), "random")
    assert again.equals(rows)


@settings(max_examples=20, deadline=None)
@given(datasets(), st.data())
def test_a_leak_is_refused_unless_it_is_declared_and_then_counted(records, data):
    """Random images move to the other side: what the brute force finds on both sides is what is counted."""
    moved = set(data.draw(st.lists(st.sampled_from(records["path"].to_list()), max_size=12)))
    other = pl.when(pl.col("split") == "test").then(pl.lit("train")).otherwise(pl.lit("test"))
    rows = conform(records.with_columns(split=pl.when(pl.col("path").is_in(moved)).then(other).otherwise("split")), "x")
    sides = {s: {b for a, b in rows.select("subject", "split").rows() if a == s} for s in rows["subject"].unique()}
    torn = {s for s, where in sides.items() if len(where) == 2}
    tested = rows.filter(split="test")
    found = leak(rows)
    assert found["subjects"] == len(torn) and found["test_subjects"] == sum("test" in w for w in sides.values())
    assert found["images"] == sum(s in torn for s in tested["subject"]) and found["test_images"] == len(tested)
    if torn:
        with pytest.raises(InputError, match="is in split"):
            leak_check(rows, "x")
    trained = sum("train" in where for where in sides.values())
    if trained >= FOLDS and len(tested):
        folded = with_folds(rows, "x", leaks=True)
        known = folded.drop_nulls("fold").group_by("subject").agg(pl.col("fold").n_unique())
        assert known["fold"].max() == 1 and (folded["fold"].is_null() == (folded["split"] == "test")).all()


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
