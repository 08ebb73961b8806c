import numpy as np
import pytest
from PIL import Image

from marginlab.data.decode import Decoder


def noise(*shape, high=256, dtype=np.uint8):
    return np.random.default_rng(7).integers(0, high, shape).astype(dtype)


def decoder(root, **keywords):
    return Decoder(**{"root": root, "size": 16, "channels": 1, "crop": None, **keywords})


def decoded(root, image, ending="png", flip=False, **keywords):
    image.save(root / f"image.{ending}")
    return decoder(root, **keywords)((f"image.{ending}", flip))


def test_eight_bit_grey_passes_through(tmp_path):
    grey = noise(16, 16)
    for ending in ("png", "tif"):
        pixels = decoded(tmp_path, Image.fromarray(grey), ending)
        assert pixels.dtype == np.uint8
        assert np.array_equal(pixels, grey[None])


def test_a_right_knee_is_mirrored(tmp_path):
    grey = noise(16, 16)
    assert np.array_equal(decoded(tmp_path, Image.fromarray(grey), flip=True), grey[None, :, ::-1])


def test_rgb_and_rgba_become_grey_by_their_brightness_and_alpha_is_dropped(tmp_path):
    rgba = noise(16, 16, 4)
    expected = rgba[..., :3] @ np.array([0.299, 0.587, 0.114])
    for image in (Image.fromarray(rgba), Image.fromarray(rgba[..., :3])):
        assert np.abs(decoded(tmp_path, image)[0] - expected).max() <= 1
    grey_alpha = Image.merge("LA", [Image.fromarray(rgba[..., 0]), Image.fromarray(rgba[..., 3])])
    assert np.array_equal(decoded(tmp_path, grey_alpha)[0], rgba[..., 0])


def test_colour_is_kept_where_the_dataset_has_it(tmp_path):
    rgb = noise(16, 16, 3)
    assert np.array_equal(decoded(tmp_path, Image.fromarray(rgb), channels=3), rgb.transpose(2, 0, 1))
    assert np.array_equal(
        decoded(tmp_path, Image.fromarray(rgb[..., 0]), channels=3), rgb[..., [0, 0, 0]].transpose(2, 0, 1)
    )


def test_sixteen_bit_is_scaled_by_257(tmp_path):
    deep = noise(16, 16, high=65536, dtype=np.uint16)
    deep[0, :4] = 0, 128, 129, 65535
    expected = np.floor(deep / 257 + 0.5).astype(np.uint8)
    assert expected[0, :4].tolist() == [0, 0, 1, 255]
    for ending in ("png", "tif"):
        assert np.array_equal(decoded(tmp_path, Image.fromarray(deep), ending)[0], expected)


def test_the_crop_is_central_and_only_where_both_sides_are_long_enough(tmp_path):
    grey = noise(21, 30)  # height, width
    pixels = decoded(tmp_path, Image.fromarray(grey), crop=16)
    assert np.array_equal(pixels[0], grey[2:18, 7:23])
    flat = np.full((12, 40), 90, dtype=np.uint8)
    flat[:, :8] = 0  # a central crop would lose this edge
    assert decoded(tmp_path, Image.fromarray(flat), crop=16)[0, 8, 0] < 20


def test_resizing_averages(tmp_path):
    checkers = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)
    assert np.abs(decoded(tmp_path, Image.fromarray(checkers))[0].astype(int) - 127).max() <= 2


def damaged(root, how):
    file = root / "image.png"
    Image.fromarray(noise(64, 64)).save(file)
    content = file.read_bytes()
    if how == "truncated":
        file.write_bytes(content[: len(content) // 2])
    if how == "empty":
        file.write_bytes(b"")
    if how == "text":
        file.write_text("this is no image")
    if how == "missing":
        file.unlink()
    if how == "flipped bit":
        file.write_bytes(content[:60] + bytes([content[60] ^ 255]) + content[61:])


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("truncated", "the image is truncated or damaged"),
        ("flipped bit", "the image is truncated or damaged"),
        ("empty", "the file is empty"),
        ("text", "the file is no PNG, JPEG, TIFF or DICOM image"),
        ("missing", "the file does not exist"),
    ],
)
def test_why_an_image_cannot_be_read(tmp_path, how, reason):
    damaged(tmp_path, how)
    result = decoder(tmp_path)(("image.png", False))
    assert isinstance(result, str) and result.startswith(reason)


def test_pixels_that_are_no_grey_levels(tmp_path):
    assert "floating-point" in decoded(tmp_path, Image.fromarray(noise(4, 4).astype(np.float32)), "tif")
    assert "more than 16 bits" in decoded(tmp_path, Image.fromarray(np.full((4, 4), 70000, np.int32)), "tif")


def test_a_decompression_bomb_is_not_decoded(tmp_path, monkeypatch):
    for limit in (3000, 1000):  # Pillow warns above its limit and refuses above twice its limit
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        assert decoded(tmp_path, Image.fromarray(noise(64, 64))) == f"the image has more than {limit} pixels"


def test_a_path_that_leaves_the_folder(tmp_path):
    root = tmp_path / "raw"
    root.mkdir()
    Image.fromarray(noise(4, 4)).save(tmp_path / "secret.png")
    (root / "link.png").symlink_to(tmp_path / "secret.png")
    for path in ("../secret.png", str(tmp_path / "secret.png"), "link.png"):
        assert decoder(root)((path, False)) == "the path points outside the raw folder"


def test_dark_borders_are_cropped_and_the_rest_is_put_on_a_square(tmp_path):
    """By hand: 2 x 4 bright pixels in a dark frame of 6 x 9, in a square of 4 with a black row above and below."""
    frame = np.full((6, 9), 16, dtype=np.uint8)  # as bright as a border may be
    frame[3:5, 2:6] = [[17, 90, 255, 40], [60, 0, 0, 80]]
    square = np.zeros((4, 4), dtype=np.uint8)
    square[1:3] = frame[3:5, 2:6]
    assert np.array_equal(decoded(tmp_path, Image.fromarray(frame), trim=True, size=4)[0], square)
    tall = decoded(tmp_path, Image.fromarray(frame.T.copy()), trim=True, size=4)[0]
    assert np.array_equal(tall, square.T)
    assert np.array_equal(
        decoded(tmp_path, Image.fromarray(frame), trim=True, size=2, crop=2)[0], square[1:3, 1:3]
    )  # the crop comes after


def test_a_pixel_is_as_bright_as_its_brightest_channel(tmp_path):
    frame = np.zeros((5, 5, 3), dtype=np.uint8)
    frame[1:3, 2:4] = (0, 0, 30)
    assert (decoded(tmp_path, Image.fromarray(frame), trim=True, channels=3, size=2) == [[[0]], [[0]], [[30]]]).all()


def test_single_bright_pixels_are_no_content(tmp_path):
    frame = np.zeros((300, 300), dtype=np.uint8)
    frame[100:140, 50:90] = 200
    frame[5, 7] = frame[290, 11] = frame[3, 295] = 255
    assert (decoded(tmp_path, Image.fromarray(frame), trim=True, size=40) == 200).all()


def test_an_image_without_content_is_unreadable(tmp_path):
    for black in (Image.new("RGB", (20, 10)), Image.new("L", (9, 9), 16)):
        said = decoded(tmp_path, black, trim=True, channels=3)
        assert said == "the image is black: hardly a pixel is brighter than 16 of 255"
        assert not isinstance(decoded(tmp_path, black, channels=3), str)  # only where borders are cropped
