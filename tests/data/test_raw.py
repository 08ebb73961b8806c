import polars as pl
import pytest

from marginlab.data.raw import conform
from marginlab.data.readers import reader
from marginlab.values import InputError

GOOD = {"path": ["b.png", "a.png"], "subject": ["2", "1"], "split": ["test", "train"]}


def test_columns_that_a_reader_leaves_out_are_unknown():
    rows = conform(pl.DataFrame({**GOOD, "months": [12, 0], "side": ["R", "L"]}), "mine")
    assert rows["path"].to_list() == ["a.png", "b.png"]  # sorted, so that the order of files on disk does not matter
    assert rows["months"].to_list() == [0.0, 12.0]
    assert rows["age"].to_list() == [None, None]
    assert rows["flip"].to_list() == [False, False]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"subject": None}, "mine: the column 'subject' is missing; a reader gives at least path, subject, split"),
        ({"sex": ["f", "m"]}, "mine: the column 'sex' is unknown"),
        ({"months": ["one", "two"]}, "mine: the column 'months' holds values that are no Float32"),
        ({"subject": ["2", None]}, "mine: record 1 has no subject"),
        ({"path": ["x/../a.png", "a.png"]}, r"mine: two records for one image, a\.png; keep one of them"),
    ],
)
def test_a_table_that_is_refused(change, sentence):
    columns = {k: v for k, v in {**GOOD, **change}.items() if v is not None}
    with pytest.raises(InputError, match=sentence):
        conform(pl.DataFrame(columns), "mine")


def test_readers_by_name():
    assert reader("oai").test_site == "C"
    with pytest.raises(InputError, match="There is no reader 'mri'; those that ship are oai, cxr14"):
        reader("mri")
