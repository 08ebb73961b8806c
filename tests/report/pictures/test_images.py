from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image

from marginlab.data.thumbnail import SIDE
from marginlab.report.pictures.images import Images
from marginlab.values import InputError
from tests.report.pictures.made import small_study, write_packed, write_study


def opened(uri: str) -> Image.Image:
    head, _, data = uri.partition(",")
    assert head == "data:image/png;base64"
    return Image.open(io.BytesIO(base64.b64decode(data)))


def test_an_image_is_the_packed_one_as_a_png(tmp_path):
    results = write_study(tmp_path, small_study(seeds=1))
    write_packed(tmp_path, "OaiPhantom v1")
    image = opened(Images.of(results, "oai").uri(11))
    assert image.mode == "L" and image.size == (8, 8) and np.asarray(image).tolist() == [[77] * 8] * 8


def test_large_and_coloured_images_are_made_small(tmp_path):
    packed = write_packed(tmp_path, "EyePACS phantom v1", channels=3, size=200)
    image = opened(Images(packed).uri(11))
    assert image.mode == "RGB" and image.size == (SIDE, SIDE) and image.getpixel((5, 5)) == (77, 77, 77)


def test_images_of_people_are_refused_unless_asked_for(tmp_path):
    results = write_study(tmp_path, small_study(seeds=1, phantom=False))
    write_packed(tmp_path, None)
    with pytest.raises(InputError, match="on request alone.*--galleries"):
        Images.of(results, "oai")
    assert opened(Images.of(results, "oai", restricted=True).uri(1)).size == (8, 8)


def test_what_the_images_say_counts_not_what_the_study_says(tmp_path):
    results = write_study(tmp_path, small_study(seeds=1, phantom=True))
    write_packed(tmp_path, None)
    with pytest.raises(InputError, match="on request alone"):
        Images.of(results, "oai")


def test_a_study_that_was_moved_without_its_data_has_a_sentence(tmp_path):
    results = write_study(tmp_path / "moved", small_study(seeds=1))
    with pytest.raises(InputError, match="not in this workspace"):
        Images.of(results, "oai")
    write_packed(tmp_path / "elsewhere", "OaiPhantom v1")
    damaged = tmp_path / "elsewhere" / "data" / "a" / "dataset.json"
    damaged.parent.mkdir()
    damaged.write_text("{")
    assert Images.of(results, "oai", workspace=tmp_path / "elsewhere").packed.name == "oai"
