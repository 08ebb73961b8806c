import numpy as np
import polars as pl
import pytest

from marginlab.data.manifest import SCHEMA, codes, dataset_fingerprint, label, role, validate
from marginlab.values import InputError


def manifest(**changes):
    """Three subjects; a and b train in folds 0 and 1, c is tested."""
    columns = {
        "row": [0, 1, 2, 3, 4],
        "subject": list("aabcc"),
        "label": list("aabcc"),
        "months": [0.0, 12.0, 0.0, 0.0, None],
        "side": ["L", "R", "L", None, None],
        "view": [None] * 5,
        "site": list("AAACC"),
        "split": ["train"] * 3 + ["test"] * 2,
        "fold": [0, 0, 1, None, None],
        "role": ["gallery", "query", "gallery", "gallery", "other"],
        "channels": [1] * 5,
        "age": [50.0] * 5,
        "grade": [None] * 5,
    }
    return pl.DataFrame({**columns, **changes}, schema=SCHEMA)


PIXELS = np.random.default_rng(0).integers(0, 256, (5, 1, 4, 4), dtype=np.uint8)


def fingerprint(pixels=PIXELS, mean=(0.5,), **changes):
    return dataset_fingerprint(pixels, manifest(**changes), mean, (0.5,))


def test_a_good_manifest_passes():
    validate(manifest(), "here")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"row": [0, 1, 2, 2, 3]}, "here: two rows for image 2; keep one of them"),
        ({"row": [1, 0, 2, 3, 4]}, "here: the rows are not numbered 0 to 4"),
        (
            {"split": ["train", "test"] + ["train"] * 3, "fold": [0, None, 1, 2, 2]},
            "the subject a is in split train and split test",
        ),
        ({"fold": [0, 3, 1, None, None]}, "the subject a is in fold 0 and fold 3"),
        ({"fold": [0, 0, 5, None, None]}, "here, row 2: the field 'fold' must be one of 0, 1, 2, 3, 4, empty, not 5"),
        ({"fold": [0, 0, None, None, None]}, "here, row 2: the field 'fold' must be given for the training split"),
        (
            {"fold": [0, 0, 1, 1, 1]},
            "here, row 3: the field 'fold' must be given for the training split and only there",
        ),
        ({"side": ["L", "X", "L", None, None]}, "here, row 1: the field 'side' must be one of L, R, empty, not 'X'"),
        ({"split": ["train"] * 4 + [None]}, "here, row 4: the field 'split' must be one of train, test, not None"),
        ({"role": ["first"] * 5}, "here, row 0: the field 'role' must be one of gallery, query, other, not 'first'"),
        ({"label": [*"aab", None, "c"]}, "here, row 3: the field 'label' is empty"),
    ],
)
def test_what_is_refused(changes, sentence):
    with pytest.raises(InputError, match=sentence):
        validate(manifest(**changes), "here")


def test_columns_that_are_missing_or_of_another_type():
    with pytest.raises(InputError, match="here: the column 'fold' is missing"):
        validate(manifest().drop("fold"), "here")
    with pytest.raises(InputError, match="here: the column 'months' is Float64, not Float32"):
        validate(manifest().cast({"months": pl.Float64}), "here")
    with pytest.raises(InputError, match="here: the table has no rows"):
        validate(manifest().head(0), "here")


def test_roles_follow_from_months_unless_the_reader_says():
    rows = pl.DataFrame({"months": [0.0, 12.0, -12.0, None, 24.0], "role": [None, None, None, None, "gallery"]})
    assert rows.select(role())["role"].to_list() == ["gallery", "query", "other", "other", "gallery"]


def test_labels():
    rows = pl.DataFrame({"subject": ["a", "a"], "side": ["L", "R"]})
    assert rows.select(label("subject")).to_series().to_list() == ["a", "a"]
    assert rows.select(label("subject-side")).to_series().to_list() == ["a-L", "a-R"]
    with pytest.raises(InputError, match="There is no label 'knee'; a label is subject, subject-side or grade"):
        label("knee")


def test_codes_are_in_order_of_first_appearance():
    assert codes("cacbba").tolist() == [0, 1, 0, 2, 2, 1]


def test_the_fingerprint_does_not_see_pseudonyms():
    assert fingerprint() == fingerprint(subject=list("zzyxx"), label=list("zzyxx"))
    assert fingerprint() == fingerprint() == "ec3e305a5b703ae6"  # the same on every machine


def test_the_fingerprint_sees_what_decides_a_result():
    one_pixel = PIXELS.copy()
    one_pixel[4, 0, 3, 3] ^= 1
    changed = {
        fingerprint(),
        fingerprint(pixels=one_pixel),
        fingerprint(mean=(0.4,)),
        fingerprint(fold=[1, 1, 0, None, None]),
        fingerprint(split=["test"] * 3 + ["train"] * 2),
        fingerprint(label=["a", "A", "b", "c", "c"]),
        fingerprint(subject=["a", "A", "b", "c", "c"]),
        fingerprint(months=[0.0, 24.0, 0.0, 0.0, None]),
        fingerprint(months=[0.0, 12.0, 0.0, 0.0, 0.0]),
        fingerprint(role=["gallery", "other", "gallery", "gallery", "other"]),
    }
    assert len(changed) == 10
