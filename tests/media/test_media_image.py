"""Pictures become upright, RGB, 8-bit and opaque; damaged ones become a MediaError."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from PIL import Image

from pvc.errors import MediaError, UsageError
from pvc.media import Limits, Picture, load_image
from pvc.media.image_header import iter_animation_frames, read_declared_size

CODES = {"png": "PNG", "jpeg": "JPEG", "webp": "WEBP", "gif": "GIF", "bmp": "BMP"}


def encoded(image: Image.Image, form: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def pixels(source, **options) -> list:
    return np.asarray(load_image(source, **options).image).tolist()


def gradient(width: int = 40, height: int = 24) -> Image.Image:
    y, x = np.mgrid[:height, :width]
    return Image.fromarray(np.stack([x * 5, y * 9, x * 0 + 40], axis=-1).astype(np.uint8))


@pytest.mark.parametrize("name", CODES)
def test_every_format_is_read(name):
    image = gradient()
    picture = load_image(encoded(image, CODES[name]))
    assert isinstance(picture, Picture)
    assert picture.format == name
    assert picture.warnings == ()
    assert picture.image.mode == "RGB"
    assert picture.image.size == (40, 24)
    # GIF quantises to 256 colours, JPEG and WebP lose a little.
    worst = np.abs(np.asarray(picture.image).astype(int) - np.asarray(image)).max()
    assert worst <= (0 if name in ("png", "bmp") else 40)


@pytest.mark.parametrize("name", CODES)
def test_the_header_alone_tells_the_size(name):
    data = encoded(gradient(37, 21), CODES[name], **({"lossless": True} if name == "webp" else {}))
    assert read_declared_size(name, io.BytesIO(data)) == (37, 21)


def test_sizes_of_the_rarer_headers():
    exif = Image.Exif()
    exif[0x010E] = "x"
    assert read_declared_size("webp", io.BytesIO(encoded(gradient(), "WEBP", exif=exif))) == (40, 24)  # VP8X
    assert read_declared_size("jpeg", io.BytesIO(encoded(gradient(), "JPEG", progressive=True, exif=exif))) == (40, 24)
    os2 = b"BM" + bytes(12) + struct.pack("<IHH", 12, 7, 5) + bytes(4)
    assert read_declared_size("bmp", io.BytesIO(os2)) == (7, 5)
    top_down = b"BM" + bytes(12) + struct.pack("<Iii", 40, 7, -5)
    assert read_declared_size("bmp", io.BytesIO(top_down)) == (7, 5)
    padded = b"\xff\xd8" + b"\xff" * 9 + b"\xe0\0\x04ab" + b"\0\0" + b"\xff\xc0\0\x0b\x08\0\x05\0\x07"
    assert read_declared_size("jpeg", io.BytesIO(padded)) == (7, 5)


@pytest.mark.parametrize("junk", [b"", b"\xff\xd8\xff", b"\xff\xd8" + b"\xff" * 500_000, b"\xff\xd8" + bytes(500_000)])
def test_padding_without_end_is_given_up(junk):
    assert read_declared_size("jpeg", io.BytesIO(junk)) is None


def test_a_gif_of_tiny_blocks_is_given_up(monkeypatch):
    monkeypatch.setattr("pvc.media.image_header._MAX_GIF_STEPS", 1000)
    head = b"GIF89a" + bytes(7)
    assert list(iter_animation_frames("gif", io.BytesIO(head + b"," + bytes(10) + b"\1x" * 900 + b"\0;"))) != []
    assert list(iter_animation_frames("gif", io.BytesIO(head + b"x" * 5000 + b"," + bytes(12)))) == []


@pytest.mark.parametrize(("width", "height", "code"), [(30_000, 30_000, "too_many_pixels"), (500, 2, "aspect_ratio")])
def test_limits_hold_before_decoding(make_png, width, height, code):
    bomb = make_png(width, height, 8, 2, [b"no pixels at all"])
    with pytest.raises(MediaError, match=f"{width}x{height}") as caught:
        load_image(bomb)
    assert caught.value.code == code


def test_own_limits():
    data = encoded(gradient(), "PNG")
    assert load_image(data, Limits(max_pixels=960)).image.size == (40, 24)
    for source in (data, gradient(), np.asarray(gradient())):
        with pytest.raises(MediaError, match="960 pixels; the limit is 959"):
            load_image(source, Limits(max_pixels=959))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(orientation):
    """Stored turned and mirrored the other way round, the picture comes out upright."""
    upright = gradient()
    ways = Image.Transpose
    undo = {
        2: ways.FLIP_LEFT_RIGHT,
        3: ways.ROTATE_180,
        4: ways.FLIP_TOP_BOTTOM,
        5: ways.TRANSPOSE,
        6: ways.ROTATE_90,
        7: ways.TRANSVERSE,
        8: ways.ROTATE_270,
    }
    stored = upright if orientation == 1 else upright.transpose(undo[orientation])
    exif = Image.Exif()
    exif[0x0112] = orientation
    for form in ("PNG", "WEBP"):
        options = {"lossless": True} if form == "WEBP" else {}
        data = encoded(stored, form, exif=exif, **options)
        assert pixels(data) == np.asarray(upright).tolist()
        with Image.open(io.BytesIO(data)) as opened:  # a PIL picture that still carries the tag
            assert pixels(opened) == np.asarray(upright).tolist()


@pytest.mark.parametrize("exif", [b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0garbage", b"Exif\0\0"])
def test_damaged_exif_only_costs_the_orientation(exif):
    assert load_image(encoded(gradient(), "JPEG", exif=exif)).image.size == (40, 24)


def test_sixteen_bits_are_scaled_and_not_clipped(make_png):
    grey = make_png(3, 1, 16, 0, [struct.pack(">HHH", 0, 32768, 65535)])
    assert pixels(grey) == [[[0] * 3, [128] * 3, [255] * 3]]
    colour = make_png(1, 1, 16, 2, [struct.pack(">HHH", 0, 32768, 65535)])
    assert pixels(colour) == [[[0, 128, 255]]]
    assert pixels(Image.fromarray(np.array([[0, 65535]], np.uint16))) == [[[0] * 3, [255] * 3]]


def test_transparency_is_composited_on_white(make_png):
    half_red = make_png(1, 1, 8, 6, [bytes([255, 0, 0, 128])])
    assert pixels(half_red) == [[[255, 127, 127]]]
    half_black = make_png(1, 1, 8, 4, [bytes([0, 128])])
    assert pixels(half_black) == [[[127, 127, 127]]]
    palette = make_png(2, 1, 8, 3, [b"\0\1"], trns=b"\0\x80", palette=bytes([255, 0, 0, 0, 0, 255]))
    assert pixels(palette) == [[[255, 255, 255], [127, 127, 255]]]
    keyed = make_png(2, 1, 8, 2, [bytes([1, 2, 3, 4, 5, 6])], trns=struct.pack(">HHH", 1, 2, 3))
    assert pixels(keyed) == [[[255, 255, 255], [4, 5, 6]]]
    keyed_grey = make_png(2, 1, 8, 0, [bytes([85, 170])], trns=struct.pack(">H", 85))
    assert pixels(keyed_grey) == [[[255] * 3, [170] * 3]]
    keyed_16 = make_png(2, 1, 16, 0, [struct.pack(">HH", 1000, 40000)], trns=struct.pack(">H", 1000))
    assert pixels(keyed_16) == [[[255] * 3, [156] * 3]]


def test_other_modes():
    assert pixels(encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG"))[4][4][0] > 200
    assert pixels(encoded(Image.fromarray(np.array([[True, False]])), "PNG")) == [[[255] * 3, [0] * 3]]
    for mode in ("L", "P", "HSV", "YCbCr", "LAB", "RGBa", "RGBX"):
        assert load_image(Image.new(mode, (3, 2))).image.size == (3, 2)
    with pytest.raises(UsageError, match="La"):  # Pillow has no way from premultiplied grey to RGB
        load_image(Image.new("La", (3, 2)))


def test_an_animation_gives_its_first_frame(make_animation):
    for name in ("a.gif", "a.webp", "a.png"):
        assert np.asarray(load_image(make_animation(name, [100, 100, 100])).image).max() <= 1


def test_a_video_is_no_picture(make_video):
    with pytest.raises(MediaError, match="this is a video") as caught:
        load_image(make_video("a.mp4", count=1))
    assert caught.value.code == "unsupported_format"


@pytest.mark.parametrize("name", CODES)
def test_a_cut_file_is_corrupt(name):
    data = encoded(Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 60, 3), np.uint8)), CODES[name])
    for length in (len(data) // 2, 60, 20):
        with pytest.raises(MediaError) as caught:
            load_image(data[:length])
        assert caught.value.code == "corrupt_media"


def test_the_cause_is_kept():
    data = encoded(gradient(), "PNG")
    with pytest.raises(MediaError) as caught:
        load_image(data[: len(data) // 2])
    assert isinstance(caught.value.__cause__, (OSError, SyntaxError))


def test_arrays():
    rgb = np.asarray(gradient())
    picture = load_image(rgb)
    assert picture.format == "array"
    assert (np.asarray(picture.image) == rgb).all()
    assert pixels(rgb[..., 0]) == pixels(np.repeat(rgb[..., :1], 3, axis=2)) == pixels(rgb[..., :1])
    assert pixels(np.zeros((1, 1, 4), np.uint8)) == [[[255, 255, 255]]]
    for kind in (np.float16, np.float32, np.float64):
        assert pixels(np.array([[0, 0.5, 1]], kind)) == [[[0] * 3, [128] * 3, [255] * 3]]
    assert pixels(np.array([[1.000001]])) == [[[255] * 3]]  # rounding is forgiven
    assert pixels(rgb[::-1, ::-1]) == rgb[::-1, ::-1].tolist()  # not contiguous


def test_anything_with_array():
    class Tensor:
        def __array__(self, dtype=None, copy=None):
            return np.full((2, 3, 3), 7, np.uint8)

    assert load_image(Tensor()).image.size == (3, 2)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((3, 8, 8), np.uint8),  # channels first
        np.zeros((8, 8, 2), np.uint8),
        np.zeros((0, 8, 3), np.uint8),
        np.zeros(8, np.uint8),
        np.zeros((1, 2, 3, 3), np.uint8),
        np.zeros((8, 8), np.int64),
        np.zeros((8, 8), np.uint16),
        np.full((8, 8), 1.5),
        np.full((8, 8), -0.5),
        np.full((8, 8), np.nan),
        np.array([["a"]]),
    ],
)
def test_wrong_arrays_are_a_usage_error(array):
    with pytest.raises(UsageError):
        load_image(array)


def test_pictures_of_pil():
    image = gradient()
    picture = load_image(image)
    assert picture.format == "pil"
    assert picture.image is not image
    picture.image.putpixel((0, 0), (9, 9, 9))
    assert image.getpixel((0, 0)) == (0, 0, 40)  # the caller's picture is not touched
    for wrong in (Image.new("RGB", (0, 4)), Image.new("F", (2, 2), 7.0), Image.new("I", (2, 2), -1)):
        with pytest.raises(UsageError):
            load_image(wrong)
    assert pixels(Image.new("F", (1, 1), 1.0)) == [[[255] * 3]]


def test_a_lazy_picture_of_pil_that_is_broken():
    data = encoded(gradient(), "PNG")
    with pytest.raises(MediaError) as caught:
        load_image(Image.open(io.BytesIO(data[: len(data) // 2])))
    assert caught.value.code == "corrupt_media"
