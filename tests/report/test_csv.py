from __future__ import annotations

import polars as pl
from polars.testing import assert_frame_equal

from marginlab import tables
from marginlab.report.csv import write_csv


def test_the_files_hold_the_tables(results, tmp_path):
    written = write_csv(results, tmp_path / "report")
    assert [p.name for p in written] == ["headline.csv", "epochs.csv", "runs.csv"]
    for path, frame in zip(written, (tables.headline(results), results.epochs(), results.runs()), strict=True):
        read = pl.read_csv(path, schema=frame.schema)
        assert_frame_equal(read.fill_null(""), frame.fill_null(""), check_exact=True)


def test_nothing_half_written_is_left_behind(results, tmp_path):
    write_csv(results, tmp_path)
    write_csv(results, tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["epochs.csv", "headline.csv", "runs.csv"]
