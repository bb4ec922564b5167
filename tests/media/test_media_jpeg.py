"""Photos of many megapixels are decoded at a reduced size, within the pixel limit and within memory."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from PIL import Image

from pvc.errors import MediaError
from pvc.media import DEFAULT_LIMITS, Limits, load, load_image, probe
from pvc.media.image_header import JpegFrame, read_jpeg_frame
from pvc.media.outline import outline
from tests.media.test_media_hostile import measure

SMALL = Limits(max_pixels=40_000)
FEW_TILES = 13 * 448 * 448  # what twelve tiles and a thumbnail of 448 pixels hold


def gradient(width: int, height: int) -> Image.Image:
    x, y = np.linspace(0, 255, width, dtype=np.uint8), np.linspace(0, 255, height, dtype=np.uint8)
    return Image.merge(
        "RGB",
        [
            Image.fromarray(np.broadcast_to(x, (height, width))),
            Image.fromarray(np.broadcast_to(y[:, None], (height, width))),
            Image.new("L", (width, height), 90),
        ],
    )


def jpeg(image: Image.Image, form: str = "JPEG", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, form, quality=95, **options)
    return file.getvalue()


def with_size(data: bytes, width: int, height: int, marker: bytes = b"\xff\xc0") -> bytes:
    """The JPEG with another size in its header."""
    at = data.index(marker) + 5
    return data[:at] + struct.pack(">HH", height, width) + data[at + 4 :]


def turned(value: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = value
    return exif


@pytest.mark.parametrize(
    ("size", "options", "expected"),
    [
        ((8064, 6048), {}, (4032, 3024)),
        ((16384, 3600), {}, (8192, 1800)),
        ((16384, 3600), {"progressive": True, "exif": turned(6)}, (1800, 8192)),
    ],
    ids=["photo", "panorama", "turned and progressive"],
)
def test_ordinary_large_photos(tmp_path, size, options, expected):
    """As large as the limit allows, in less memory than a picture at the limit takes."""
    path = tmp_path / "photo.jpg"
    whole = gradient(*size)
    whole.save(path, **options)
    thumbnail = np.asarray(whole.resize((8, 8), reducing_gap=2))
    del whole
    code, _, growth, _ = measure(path, "image")
    assert code == "ok"
    assert growth < 300, f"{growth} MB"
    picture = load_image(path)
    assert picture.image.size == expected
    assert FEW_TILES < expected[0] * expected[1] <= DEFAULT_LIMITS.max_pixels < 4 * expected[0] * expected[1]
    for seen in (probe(path), outline(path)):
        assert (seen.width, seen.height) == expected
    reduced = np.asarray(picture.image.resize((8, 8), reducing_gap=2)).astype(int)
    assert np.abs(reduced - (np.rot90(thumbnail, -1) if "exif" in options else thumbnail)).max() <= 4


@pytest.mark.parametrize("scale", [1, 2, 4, 8])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}], ids=str)
def test_the_smallest_reduction_within_the_limit(scale, options):
    """Within the limit nothing is reduced; one pixel above, sides are halved once more."""
    image = gradient(200 * scale, 200 * scale)
    data = jpeg(image, **options)
    if "progressive" in options and scale > 2:
        with pytest.raises(MediaError, match="progressive"):
            load_image(data, SMALL)
        return
    reduced = load_image(data, SMALL).image
    assert reduced.size == (200, 200)
    averaged = np.asarray(image.reduce(scale)).astype(int)
    assert np.abs(np.asarray(reduced) - averaged).max() <= 6
    full = load_image(data).image
    assert full.size == image.size
    if scale == 1:
        assert np.array_equal(np.asarray(full), np.asarray(reduced))
    if scale < 8:
        assert load_image(data, Limits(max_pixels=39_999)).image.size == (100, 100)


@pytest.mark.parametrize("size", [(401, 199), (403, 777), (1599, 1601), (1207, 9)])
@pytest.mark.parametrize("value", [1, 6])
def test_odd_sizes(size, value):
    limits = Limits(max_pixels=size[0] * size[1] // 5)
    data = jpeg(gradient(*size), exif=turned(value))
    picture = load_image(data, limits).image
    width, height = picture.size[::-1] if value == 6 else picture.size
    assert width * height <= limits.max_pixels
    scale = round(size[0] / width)
    assert (width, height) == (-(-size[0] // scale), -(-size[1] // scale))
    for seen in (probe(data, limits), outline(data, limits)):
        assert (seen.width, seen.height) == picture.size


@pytest.mark.parametrize("mode", ["L", "CMYK", "RGB"])
def test_other_colours(mode):
    image = gradient(400, 400).convert(mode)
    picture = load_image(jpeg(image), SMALL).image
    assert (picture.mode, picture.size) == ("RGB", (200, 200))
    expected = np.asarray(image.convert("RGB").reduce(2)).astype(int)
    assert np.abs(np.asarray(picture) - expected).max() <= 10


def test_several_pictures_in_one_file():
    """Cameras add previews and gain maps (MPO); the first picture counts."""
    data = jpeg(gradient(400, 400), "MPO", save_all=True, append_images=[Image.new("RGB", (40, 30), "red")])
    for limits, size in ((SMALL, (200, 200)), (DEFAULT_LIMITS, (400, 400))):
        picture = load_image(data, limits)
        assert picture.format == "jpeg"
        assert picture.image.size == size
    as_video = load(data, kind="video", limits=SMALL)
    assert as_video.frames.shape == (1, 200, 200, 3)


def test_a_file_that_breaks_off_is_damaged_at_any_size():
    for options in ({}, {"progressive": True}):
        data = jpeg(gradient(400, 400), **options)
        for limits in (SMALL, DEFAULT_LIMITS):
            with pytest.raises(MediaError) as caught:
                load_image(data[: len(data) // 2], limits)
            assert caught.value.code == "corrupt_media"


def test_a_bomb_of_a_header(tmp_path):
    path = tmp_path / "bomb.jpg"
    path.write_bytes(with_size(jpeg(gradient(64, 64)), 65500, 65500))
    with pytest.raises(
        MediaError, match=r"4290250000 pixels, 67043344 at 1/8 .*the limit is 33554432; scale"
    ) as caught:
        load_image(path)
    assert caught.value.code == "too_many_pixels"
    code, _, growth, _ = measure(path, "image")
    assert code == "too_many_pixels"
    assert growth < 20


def test_a_progressive_bomb(tmp_path):
    """At 1/8 it has few pixels, but libjpeg keeps the coefficients of all of them."""
    path = tmp_path / "bomb.jpg"
    path.write_bytes(with_size(jpeg(gradient(64, 64), progressive=True), 40_000, 40_000, b"\xff\xc2"))
    assert DEFAULT_LIMITS.max_pixels > 5000 * 5000
    with pytest.raises(MediaError, match=r"progressive JPEG of 40000x40000 takes 48\d* bytes .*the limit is") as caught:
        load_image(path)
    assert caught.value.code == "too_many_pixels"
    code, _, growth, _ = measure(path, "image")
    assert code == "too_many_pixels"
    assert growth < 20


def frame_header(marker: int, width: int, height: int, components: bytes, scanned: int) -> bytes:
    """The beginning of a JPEG: its frame and its first scan."""
    count = len(components) // 3
    frame = struct.pack(">BBHBHHB", 0xFF, marker, 8 + len(components), 8, height, width, count) + components
    return b"\xff\xd8" + frame + b"\xff\xda" + struct.pack(">HB", 6 + 2 * scanned, scanned) + bytes(5 + 2 * scanned)


HALVED, FULL = b"\1\x22\0\2\x11\1\3\x11\1", b"\1\x11\0\2\x11\1\3\x11\1"


@pytest.mark.parametrize(
    ("marker", "components", "scanned", "expected"),
    [
        (0xC0, HALVED, 3, 0),  # one scan: rows are decoded as they come
        (0xC0, HALVED, 1, 3_000_000),  # a scan for each component
        (0xC2, HALVED, 3, 3_000_000),  # progressive
        (0xC2, FULL, 3, 6_000_000),
        (0xC2, b"\1\x11\0", 1, 2_000_000),
    ],
)
def test_the_memory_of_several_scans(marker, components, scanned, expected):
    frame = read_jpeg_frame(io.BytesIO(frame_header(marker, 1000, 1000, components, scanned)))
    assert isinstance(frame, JpegFrame)
    assert expected <= frame.coefficient_bytes <= 1.05 * expected


def test_scans_of_single_components_have_the_limit_too():
    data = frame_header(0xC0, 40_000, 40_000, HALVED, 1)
    with pytest.raises(MediaError, match="bytes while it is decoded"):
        load_image(data)


def test_lossless_pictures_are_not_reduced():
    """Their decoder has no smaller scale, whatever the requested size."""
    with pytest.raises(MediaError, match=r"160000 pixels; the limit is 40000") as caught:
        load_image(frame_header(0xC3, 400, 400, FULL, 3), SMALL)
    assert caught.value.code == "too_many_pixels"


def test_two_sizes_in_one_header():
    data = jpeg(gradient(64, 64))
    at = data.index(b"\xff\xc0")
    length = 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    second = with_size(data[at : at + length], 8000, 8000)
    with pytest.raises(MediaError) as caught:
        load_image(data[:at] + second + data[at:])
    assert caught.value.code == "corrupt_media"


@pytest.mark.parametrize("form", ["PNG", "WEBP", "BMP", "GIF"])
def test_other_formats_say_what_to_do(form):
    file = io.BytesIO()
    gradient(400, 400).save(file, form)
    with pytest.raises(MediaError, match=r"160000 pixels; the limit is 40000; scale it down first, or save it as JPEG"):
        load_image(file.getvalue(), SMALL)


def test_a_narrow_picture():
    """A side is never divided by more pixels than it has."""
    data = jpeg(gradient(3, 500))
    assert load_image(data, Limits(max_pixels=501)).image.size == (2, 250)
    with pytest.raises(MediaError, match="1500 pixels, 500 at 1/2"):
        load_image(data, Limits(max_pixels=400))
