"""DICOM files that the tests write, against values worked out by hand."""

from __future__ import annotations

import io
import logging
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydicom import Dataset
from pydicom.encaps import encapsulate
from pydicom.pixels import apply_modality_lut, apply_windowing
from pydicom.sequence import Sequence
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    RLELossless,
)

from marginlab.data import dicom
from marginlab.data.decode import Decoder
from marginlab.data.phantom.dicom import dataset as plain

NAME = "Müßig^Änne-71f0c2a94b"  # must be nowhere in what is said
PLAIN = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian)


def dataset(stored: np.ndarray, syntax: str = ExplicitVRLittleEndian, **elements: Any) -> Dataset:
    """With a patient's name."""
    return plain(stored, UID(syntax), **{"PatientName": NAME, **elements})


def grey(*stored: int, dtype: str = "u1", **elements: Any) -> Dataset:
    return dataset(np.array([stored], dtype=dtype), **elements)


def read(path: Path, data: Dataset, **keywords: Any) -> np.ndarray | str:
    """uint8 [C, H, W] as ``prepare`` and ``embed`` get it, in the size of the file, or why not."""
    file = path / "image.dcm"
    data.save_as(file, enforce_file_format=True)
    size = int(data.get("Rows", 1))
    return Decoder(path, **{"size": size, "channels": 1, "crop": None, **keywords})(("image.dcm", False))


def shown(path: Path, data: Dataset) -> list[int]:
    """What becomes of the four pixels of one row."""
    file = path / "image.dcm"
    data.save_as(file, enforce_file_format=True)
    return np.asarray(dicom.picture(file))[0].tolist()


def table(first: int, bits: int, *entries: int, claimed: int | None = None) -> Sequence:
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [claimed or len(entries), first, bits])
    item.add_new("LUTData", "US", list(entries))
    return Sequence([item])


@pytest.mark.parametrize("syntax", PLAIN)
@pytest.mark.parametrize(
    ("stored", "dtype", "elements", "expected"),
    [
        ((0, 1, 128, 255), "u1", {}, [0, 1, 128, 255]),
        ((0, 128, 129, 65535), "u2", {}, [0, 0, 1, 255]),  # as a 16-bit PNG
        ((0, 2048, 4095, 1000), "u2", {"BitsStored": 12}, [0, 128, 255, 62]),
        ((0, 512, 1023, 100), "u2", {"BitsStored": 10}, [0, 128, 255, 25]),
        ((-2048, 0, 2047, -1048), "i2", {"BitsStored": 12}, [0, 128, 255, 62]),
        ((-128, 0, 127, -127), "i1", {}, [0, 128, 255, 1]),
        ((0, 1, 128, 255), "u1", {"PhotometricInterpretation": "MONOCHROME1"}, [255, 254, 127, 0]),
        ((0, 1, 128, 255), "u1", {"RescaleSlope": -1, "RescaleIntercept": 7}, [255, 254, 127, 0]),
    ],
)
def test_without_a_window_black_to_white_is_what_the_bits_can_say(tmp_path, syntax, stored, dtype, elements, expected):
    assert shown(tmp_path, grey(*stored, dtype=dtype, syntax=syntax, **elements)) == expected


WINDOW = {"WindowCenter": 100, "WindowWidth": 200}


@pytest.mark.parametrize(
    ("stored", "elements", "expected"),
    [
        # values 2 x - 100 in a window from 0 to 200
        (
            (50, 100, 150, 0),
            {**WINDOW, "VOILUTFunction": "LINEAR_EXACT", "RescaleSlope": 2, "RescaleIntercept": -100},
            [0, 128, 255, 0],
        ),
        ((0, 1, 128, 255), {"WindowCenter": 128, "WindowWidth": 256}, [0, 1, 128, 255]),  # LINEAR unless it says more
        ((0, 1, 128, 255), {"WindowCenter": [128, 40], "WindowWidth": [256, 400]}, [0, 1, 128, 255]),  # the first
        ((99, 100, 0, 4000), {"WindowCenter": 100, "WindowWidth": 1}, [0, 255, 0, 255]),
        (
            (100, 110, 90, 200),
            {"WindowCenter": 100, "WindowWidth": 40, "VOILUTFunction": "SIGMOID"},
            [128, 186, 69, 255],
        ),
        ((9, 11, 12, 14), {"VOILUTSequence": table(10, 8, 0, 100, 200, 255), **WINDOW}, [0, 100, 200, 255]),
        ((0, 1, 2, 3), {"ModalityLUTSequence": table(0, 16, 0, 1000, 2000, 65535)}, [0, 4, 8, 255]),
        (
            (0, 1, 2, 3),
            {
                "ModalityLUTSequence": table(0, 16, 0, 100, 150, 900),
                **WINDOW,
                "VOILUTFunction": "LINEAR_EXACT",
                "PhotometricInterpretation": "MONOCHROME1",
            },
            [255, 128, 64, 0],
        ),
    ],
)
def test_windows_and_tables_by_hand(tmp_path, stored, elements, expected):
    assert shown(tmp_path, grey(*stored, dtype="u2", **elements)) == expected


def test_windows_are_pydicoms(tmp_path):
    """Random windows and rescaling, against pydicom's functions, whose range is made 0 to 255."""
    rng = np.random.default_rng(3)
    for function in ("LINEAR", "LINEAR_EXACT", "SIGMOID"):
        for dtype in ("u2", "i2"):
            slope, intercept = float(rng.uniform(0.5, 3)), float(rng.uniform(-500, 500))
            centre, width = float(rng.uniform(-2000, 3000)), float(rng.uniform(1, 6000))
            stored = rng.integers(-2048 if dtype == "i2" else 0, 2048, (8, 8)).astype(dtype)
            elements = {"WindowCenter": f"{centre:.3f}", "WindowWidth": f"{width:.3f}", "VOILUTFunction": function}
            elements |= {"RescaleSlope": f"{slope:.4f}", "RescaleIntercept": f"{intercept:.3f}", "BitsStored": 12}
            data = dataset(stored, **elements)
            values = apply_windowing(apply_modality_lut(stored, data), data)
            least = float(data.RescaleIntercept) - 2048 * float(data.RescaleSlope) * (dtype == "i2")
            expected = 255 * (values - least) / (4095 * float(data.RescaleSlope))
            data.save_as(tmp_path / "image.dcm", enforce_file_format=True)
            assert np.abs(np.asarray(dicom.picture(tmp_path / "image.dcm")) - expected).max() <= 0.5 + 1e-6


NOISE = np.random.default_rng(5).integers(0, 4096, (16, 16)).astype("u2")


def test_run_lengths_and_jpeg_2000_give_the_pixels_that_were_compressed(tmp_path):
    for stored in (NOISE, (NOISE // 16).astype("u1"), (NOISE.astype("i4") - 2048).astype("i2")):
        bits = {"BitsStored": 8 if stored.itemsize == 1 else 12}
        plain = read(tmp_path, dataset(stored, **bits))
        packed = dataset(stored, **bits)
        packed.compress(RLELossless, generate_instance_uid=False)
        assert packed.file_meta.TransferSyntaxUID == RLELossless
        assert np.array_equal(read(tmp_path, packed), plain)
    codestream = io.BytesIO()
    Image.fromarray(NOISE).save(codestream, "JPEG2000", no_jp2=True)
    packed = dataset(NOISE, syntax=JPEG2000Lossless, PixelData=encapsulate([codestream.getvalue()]))
    assert np.array_equal(read(tmp_path, packed), read(tmp_path, dataset(NOISE)))


def test_a_jpeg_in_a_dicom_file_is_that_jpeg(tmp_path):
    smooth = np.add.outer(np.arange(16), 5 * np.arange(16)).astype("u1")
    jpeg = io.BytesIO()
    Image.fromarray(smooth).save(jpeg, "JPEG")
    packed = dataset(smooth, syntax=JPEGBaseline8Bit, PixelData=encapsulate([jpeg.getvalue()]))
    assert np.array_equal(read(tmp_path, packed)[0], np.asarray(Image.open(jpeg)))


def test_colours(tmp_path):
    rgb = np.random.default_rng(1).integers(0, 256, (8, 8, 3)).astype("u1")
    assert np.array_equal(read(tmp_path, dataset(rgb), channels=3), rgb.transpose(2, 0, 1))
    flat = np.full((8, 8, 3), (255, 128, 128), dtype="u1")  # luminance and two differences: white
    assert (read(tmp_path, dataset(flat, PhotometricInterpretation="YBR_FULL"), channels=3) == 255).all()


def test_crop_and_mirror_are_as_for_other_files(tmp_path):
    left = (NOISE // 16).astype("u1")
    dataset(left).save_as(tmp_path / "a.dcm", enforce_file_format=True)
    Image.fromarray(left).save(tmp_path / "a.png")
    decoder = Decoder(tmp_path, 6, 1, 12)
    for flip in (True, False):
        assert np.array_equal(decoder(("a.dcm", flip)), decoder(("a.png", flip)))


def test_content_decides_not_the_ending(tmp_path):
    stored = (NOISE // 16).astype("u1")
    data = dataset(stored)
    data.save_as(tmp_path / "scan.png", enforce_file_format=True)
    Image.fromarray(stored).save(tmp_path / "photo.png")
    (tmp_path / "photo.png").rename(tmp_path / "photo.dcm")
    bare = dataset(stored, syntax=ImplicitVRLittleEndian)  # as before there was a preamble
    del bare.file_meta
    bare.save_as(tmp_path / "old.dcm", implicit_vr=True, little_endian=True, enforce_file_format=False)
    assert (tmp_path / "old.dcm").read_bytes()[:2] == b"\x08\x00"
    decoder = Decoder(tmp_path, 16, 1, None)
    for name in ("scan.png", "photo.dcm", "old.dcm"):
        assert np.array_equal(decoder((name, False)), stored[None]), name
    (tmp_path / "old.dcm").rename(tmp_path / "old.png")
    assert decoder(("old.png", False)) == "the file is no PNG, JPEG, TIFF or DICOM image"


@pytest.mark.parametrize(
    ("elements", "reason"),
    [
        ({"NumberOfFrames": 2, "PixelData": bytes(512)}, "the DICOM file holds more than one image"),
        ({"PixelData": None}, "the DICOM file holds no image"),
        ({"PixelData": None, "FloatPixelData": bytes(1024)}, "the image holds floating-point pixels"),
        ({"BitsAllocated": 32, "BitsStored": 32, "PixelData": bytes(1024)}, "another depth than 8 to 16 bits"),
        ({"BitsStored": 12}, "another depth than 8 to 16 bits"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "neither grey nor RGB nor YBR"),
        ({"Rows": 65535, "Columns": 65535}, "the image has more than 89478485 pixels"),
        ({"PixelData": bytes(100)}, "the image is truncated or damaged (ValueError)"),
        ({"Rows": None}, "the image is truncated or damaged (AttributeError)"),
        ({"RescaleSlope": 0, "RescaleIntercept": 5}, "a rescale slope of 0, or numbers that are not finite"),
        ({"WindowCenter": 5, "WindowWidth": 0}, "a window without width"),
        ({"WindowCenter": 5, "WindowWidth": 9, "VOILUTFunction": "CUBIC"}, "a window of an unknown kind"),
        ({"VOILUTSequence": table(0, 8, 7, claimed=9)}, "a table of grey levels that is cut short"),
    ],
)
def test_what_is_refused_and_why(tmp_path, elements, reason):
    said = read(tmp_path, dataset((NOISE // 16).astype("u1"), **elements), size=16)
    assert isinstance(said, str) and reason in said and "Müßig" not in said and "image.dcm" not in said


def test_an_image_too_large_is_refused_before_its_pixels_are_touched(tmp_path, monkeypatch):
    def touched(*_: Any, **__: Any) -> None:
        raise AssertionError

    monkeypatch.setattr(dicom, "pixel_array", touched)
    data = dataset((NOISE // 16).astype("u1"), Rows=20_000, Columns=20_000)
    assert read(tmp_path, data, size=16) == "the image has more than 89478485 pixels"
    monkeypatch.setattr(dicom, "BESIDE", 100)
    said = read(tmp_path, dataset((NOISE // 16).astype("u1"), PixelData=bytes(4096)))
    assert said == "the DICOM file is far larger than its image"


def test_a_jpeg_larger_than_its_header_says_is_not_decoded(tmp_path, monkeypatch):
    jpeg = io.BytesIO()
    Image.new("L", (64, 64)).save(jpeg, "JPEG")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    small = (NOISE // 16).astype("u1")
    said = read(tmp_path, dataset(small, syntax=JPEGBaseline8Bit, PixelData=encapsulate([jpeg.getvalue()])))
    assert isinstance(said, str)


@pytest.mark.parametrize("syntax", [JPEGLosslessSV1, DeflatedExplicitVRLittleEndian, "1.2.826.0.1.9999999.7"])
def test_other_ways_to_store_pixels_are_named_and_nothing_is_inflated(tmp_path, monkeypatch, syntax):
    data = dataset((NOISE // 16).astype("u1"), syntax=syntax)
    if syntax == JPEGLosslessSV1:
        data.PixelData = encapsulate([bytes(8)])
    data.save_as(tmp_path / "image.dcm", implicit_vr=False, little_endian=True, enforce_file_format=True)
    monkeypatch.setattr(zlib, "decompress", None)
    said = Decoder(tmp_path, 16, 1, None)(("image.dcm", False))
    assert isinstance(said, str) and said.startswith("the DICOM file is stored as ") and "9999999" not in said
    assert said.endswith("; decompress it first")


def test_a_file_cut_anywhere_is_unreadable_and_nothing_else(tmp_path, recwarn, caplog):
    """Many lengths of a compressed and of a plain file, values that break their rules: no exception, no warning, no log line with what is in it."""
    whole = dataset(np.zeros((4, 4), "u1"), WindowCenter="5", WindowWidth="9", StudyDate="20200101")
    whole.compress(RLELossless, generate_instance_uid=False)
    decoder = Decoder(tmp_path, 4, 1, None)
    for data in (whole, dataset(np.zeros((4, 4), "u1"))):
        data.save_as(tmp_path / "image.dcm", enforce_file_format=True)
        content = (tmp_path / "image.dcm").read_bytes().replace(b"20200101", b"not aday").replace(b"5 ", b"x ")
        (tmp_path / "image.dcm").write_bytes(content)
        recwarn.clear()
        caplog.clear()
        assert isinstance(decoder(("image.dcm", False)), str) == (data is whole)  # its window is no number
        for length in range(0, len(content) - 14, 13):
            (tmp_path / "image.dcm").write_bytes(content[:length])
            assert isinstance(decoder(("image.dcm", False)), str), length
    assert not recwarn and not [r for r in caplog.records if r.name == "pydicom"]
    assert logging.getLogger("pydicom").level < logging.CRITICAL
