from __future__ import annotations

import polars as pl
from polars.testing import assert_frame_equal

from marginlab import tables
from marginlab.report.csv import FRAMES, write_csv


def test_the_files_hold_the_tables(results, tmp_path):
    written = write_csv(results, tmp_path / "report")
    assert [p.stem for p in written] == list(FRAMES)
    frames = {"headline": tables.headline(results), "epochs": results.epochs(), "runs": results.runs()}
    for path in written:
        if path.stem in frames:
            frame = frames[path.stem]
            read = pl.read_csv(path, schema=frame.schema)
            assert_frame_equal(read.fill_null(""), frame.fill_null(""), check_exact=True)


def test_nothing_half_written_is_left_behind(results, tmp_path):
    write_csv(results, tmp_path)
    write_csv(results, tmp_path)
    assert sorted(p.stem for p in tmp_path.iterdir()) == sorted(FRAMES)
