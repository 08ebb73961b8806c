import zlib

import numpy as np
import polars as pl

from marginlab.data import checks
from marginlab.data import manifest as mf
from tests.data.listed import info, packed, people, write


def test_one_reading_sees_what_looking_at_each_image_sees(tmp_path, monkeypatch):
    monkeypatch.setattr(checks, "ROWS", 7)
    dataset = packed(write(tmp_path / "raw", *people(0, 10)), tmp_path / "out")
    pixels, seen = np.random.default_rng(0).integers(0, 256, (300, 3, 8, 8), dtype=np.uint8), []
    pixels[17] = 5
    pixels[280] = 0
    pixels[281] = 0
    pixels[281, 0, 3, 3] = 9  # not among the pixels that are looked at first
    reading = checks.Reading(pixels, lambda done, total: seen.append((done, total)))
    fingerprint = reading.fingerprint(dataset.manifest, dataset.mean, dataset.std)
    assert fingerprint == mf.dataset_fingerprint(pixels, dataset.manifest, dataset.mean, dataset.std)
    assert reading.crc.tolist() == [zlib.crc32(image.tobytes()) for image in pixels]
    assert np.flatnonzero(reading.constant).tolist() == [17, 280]
    assert reading.blocks()[1] == f"{zlib.crc32(reading.crc[7:14].astype('<u4').tobytes()):08x}"
    assert len(reading.blocks()) == 43
    assert seen == [(256, 300), (300, 300)]


def test_every_column_is_covered_and_pseudonyms_do_not_matter(tmp_path, private_home):
    raw = write(tmp_path / "raw", *people(0, 10))
    dataset = packed(raw, tmp_path / "out")
    other = packed(raw, tmp_path / "other", private=private_home.with_name("another key"))
    assert set(dataset.manifest["subject"]).isdisjoint(other.manifest["subject"])
    assert info(dataset.folder)["checks"] == info(other.folder)["checks"]
    digest = checks.of_manifest(dataset.manifest)
    assert digest == info(dataset.folder)["checks"]["manifest"]
    changed = {checks.of_manifest(dataset.manifest.with_columns(pl.lit(None).alias(c))) for c in mf.SCHEMA}
    empty = [c for c in mf.SCHEMA if dataset.manifest[c].null_count() == len(dataset.manifest)]
    assert len(changed - {digest}) == len(mf.SCHEMA) - len(empty)
