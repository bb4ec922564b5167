"""Whatever the bytes, only a PVCError leaves, on one line, and what is accepted is within the limits."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from pvc.errors import PVCError
from pvc.media import Limits, Sampling, load, load_image, probe

LIMITS = Limits(max_pixels=250_000, max_frames=40, max_source_frames=5000, max_decode_seconds=20)
FUZZ = settings(max_examples=250, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
MAGIC = [
    b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR",
    b"\xff\xd8\xff\xe0",
    b"RIFF\0\1\0\0WEBPVP8X",
    b"GIF89a",
    b"BM" + bytes(12) + b"\x28\0\0\0",
    b"\0\0\0\x18ftypisom\0\0\2\0isomiso2\0\0\1\0moov",
    b"\x1a\x45\xdf\xa3\x9f\x42\x86\x81\1\x42\x82\x84webm",
    b"RIFF\0\1\0\0AVI LIST",
    (b"G\x40\0\x10" + bytes(184)) * 4,
]


def attempt(data: bytes, sampling: Sampling) -> None:
    calls: list[Callable[[], object]] = [
        lambda: probe(data, LIMITS),
        lambda: load(data, sampling=sampling, limits=LIMITS),
        lambda: load(data, kind="video", sampling=sampling, size=(16, 16), limits=LIMITS),
        lambda: load_image(data, LIMITS),
    ]
    for call in calls:
        refusal, result = None, None
        try:
            result = call()
        except PVCError as error:
            refusal = error
        if refusal is not None:
            assert str(refusal).isprintable()
            assert refusal.exit_code in (2, 3)
        else:
            pixels = np.asarray(result.image) if hasattr(result, "image") else getattr(result, "frames", None)
            if isinstance(pixels, np.ndarray):
                assert pixels.dtype == np.uint8
                assert pixels.shape[-1] == 3
                assert pixels.shape[-3] * pixels.shape[-2] <= LIMITS.max_pixels


@FUZZ
@given(st.sampled_from(MAGIC), st.binary(max_size=600))
def test_random_bytes(magic, data):
    attempt(magic + data, Sampling())
    attempt(data, Sampling()) if data else None


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> list[bytes]:
    """One small sound file of each kind."""
    import av

    y, x = np.mgrid[:40, :48]
    scene = np.stack([x * 5, y * 6, (x + y) * 2], axis=-1).astype(np.uint8)
    image = Image.fromarray(scene)
    exif = Image.Exif()
    exif[0x0112] = 6
    files = []
    for form, options in [
        ("PNG", {}),
        ("PNG", {"save_all": True, "append_images": [image.rotate(90)]}),
        ("JPEG", {"exif": exif}),
        ("JPEG", {"progressive": True}),
        ("WEBP", {}),
        ("WEBP", {"save_all": True, "append_images": [image.rotate(5), image.rotate(9)]}),
        ("GIF", {"save_all": True, "append_images": [image.rotate(5), image.rotate(9)]}),
        ("BMP", {}),
    ]:
        file = io.BytesIO()
        image.save(file, form, **options)
        files.append(file.getvalue())
    for mode in ("LA", "P", "1", "I;16"):
        file = io.BytesIO()
        image.convert("L").convert(mode).save(file, "PNG", **({"transparency": 3} if mode == "P" else {}))
        files.append(file.getvalue())
    folder = tmp_path_factory.mktemp("good")
    for name, codec in [
        ("a.mp4", "libx264"),
        ("a.mkv", "libx264"),
        ("a.webm", "libvpx-vp9"),
        ("a.avi", "mpeg4"),
        ("a.ts", "mpeg2video"),
    ]:
        with av.open(str(folder / name), "w") as container:
            stream = container.add_stream(codec, rate=25)
            stream.height, stream.width, stream.pix_fmt = 40, 48, "yuv420p"
            for i in range(12):
                view = np.ascontiguousarray(np.roll(scene, i, axis=1))
                container.mux(stream.encode(av.VideoFrame.from_ndarray(view, format="rgb24")))
            container.mux(stream.encode())
        files.append((folder / name).read_bytes())
    return files


EDITS = st.tuples(
    st.sampled_from(["flip", "set", "word", "cut", "drop", "insert"]),
    st.floats(0, 1, exclude_max=True),
    st.booleans(),
    st.integers(0, 255),
)


def mutate(data: bytes, edits: list[tuple[str, float, bool, int]]) -> bytes:
    """`data` with each edit at a place given as a fraction of it, or of its first 200 bytes."""
    changed = bytearray(data)
    for kind, where, early, value in edits:
        at = int(where * (min(200, len(changed)) if early else len(changed)))
        if kind == "flip" and changed:
            changed[at] ^= 1 << value % 8
        elif kind == "set" and changed:
            changed[at] = value
        elif kind == "word":
            changed[at : at + 4] = [b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\0\0\1"][value % 4]
        elif kind == "cut" and value < 64:
            del changed[at:]
        elif kind == "drop":
            del changed[at : at + value % 32]
        elif kind == "insert":
            changed[at:at] = bytes([value]) * (value % 32)
    return bytes(changed)


@FUZZ
@given(
    st.integers(0, 16),
    st.lists(EDITS, min_size=1, max_size=12),
    st.sampled_from([Sampling(), Sampling(frames=2), Sampling(fps=5.0), Sampling(times=(0.1, 0.3))]),
)
def test_damaged_files(good, which, edits, sampling):
    assert len(good) == 17
    attempt(mutate(good[which], edits), sampling)


def test_the_undamaged_ones_are_read(good):
    for data in good:
        load(data, limits=LIMITS)
