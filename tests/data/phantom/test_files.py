"""Pictures as files of every kind: what other programs see in them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread
from pydicom.pixels import apply_modality_lut, apply_windowing
from pydicom.uid import ExplicitVRLittleEndian, RLELossless

from marginlab.data.phantom.dicom import XRAY
from marginlab.data.phantom.files import ENDINGS, save

PIXELS = np.arange(256, dtype=np.uint8).reshape(16, 16)


@pytest.mark.parametrize(("kind", "expected"), [("png", "L"), ("tiff", "L"), ("tiff-16", "I;16"), ("jpeg", "L")])
def test_pillow_reads_what_was_drawn(tmp_path: Path, kind: str, expected: str) -> None:
    file = tmp_path / f"a{ENDINGS[kind]}"
    save(PIXELS, file, kind)
    with Image.open(file) as image:
        assert (image.mode, image.format) == (expected, kind.partition("-")[0].upper())
        read = np.asarray(image).astype(int) / (257 if kind == "tiff-16" else 1)
    assert np.abs(read - PIXELS).max() <= (6 if kind == "jpeg" else 0)


@pytest.mark.parametrize(
    ("kind", "bits", "interpretation", "window"),
    [
        ("dicom", (8, 8), "MONOCHROME2", False),
        ("dicom-12", (16, 12), "MONOCHROME2", True),
        ("dicom-16", (16, 16), "MONOCHROME2", False),
        ("dicom-inverted", (8, 8), "MONOCHROME1", False),
        ("dicom-rle", (8, 8), "MONOCHROME2", False),
    ],
)
def test_pydicom_reads_what_was_drawn(
    tmp_path: Path, kind: str, bits: tuple[int, int], interpretation: str, window: bool
) -> None:
    save(PIXELS, tmp_path / "a.dcm", kind, "9000001")
    data = dcmread(tmp_path / "a.dcm")
    assert (data.BitsAllocated, data.BitsStored) == bits and data.PhotometricInterpretation == interpretation
    assert data.file_meta.TransferSyntaxUID == (RLELossless if kind == "dicom-rle" else ExplicitVRLittleEndian)
    assert (data.SOPClassUID, data.PatientID, "WindowCenter" in data) == (XRAY, "9000001", window)
    assert data.SOPInstanceUID == data.file_meta.MediaStorageSOPInstanceUID and data.SOPInstanceUID.is_valid
    if window:  # values on both sides of 0, of which some are outside the window in what the bits can say
        values = apply_modality_lut(data.pixel_array, data)
        assert values.min() < 0 < values.max() < 2 * 4095 - 2000 - 500
        shown = apply_windowing(values, data)
        read = (shown - shown.min()) / (shown.max() - shown.min()) * 255
    else:
        stored = data.pixel_array.astype(float) * 255 / (2**data.BitsStored - 1)
        read = 255 - stored if interpretation == "MONOCHROME1" else stored
    np.testing.assert_allclose(read, PIXELS, atol=1e-6)


def test_a_file_is_the_same_on_every_run(tmp_path: Path) -> None:
    for kind, ending in ENDINGS.items():
        files = [tmp_path / folder / f"{kind}{ending}" for folder in "ab"]
        for file in files:
            file.parent.mkdir(exist_ok=True)
            save(PIXELS, file, kind, "9000001")
        assert files[0].read_bytes() == files[1].read_bytes()
