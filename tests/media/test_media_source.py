"""What is opened, what is refused unopened, and what formats are seen in the first bytes."""

from __future__ import annotations

import os
import socket
import struct
from pathlib import Path

import numpy as np
import pytest

from pvc.errors import ForbiddenError, MediaError, UsageError
from pvc.media import DEFAULT_LIMITS, Limits, load, load_image, load_video, probe, sniff
from pvc.media.live import video_frames
from pvc.media.source import Source, open_source, to_printable_name
from tests.media.test_media_hostile import measure


@pytest.mark.parametrize(
    "address",
    [
        "http://127.0.0.1:9/a.png",
        "HTTPS://example.org/a.mp4",
        "file:///etc/hostname",
        "file:/etc/hostname",
        "ftp://x/y",
        "rtsp://x/y",
        "data:image/png;base64,AAAA",
    ],
)
@pytest.mark.parametrize("reader", [load, load_image, load_video, probe])
def test_addresses_are_forbidden(address, reader):
    with pytest.raises(ForbiddenError, match="URLs are not fetched; download the file first"):
        reader(address)


def test_things_that_are_not_files_are_forbidden(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        for path, word in [
            (tmp_path, "directory"),
            (Path("/dev/zero"), "device"),
            (tmp_path / "pipe", "pipe"),  # would wait for a writer for ever if it were opened plainly
            (tmp_path / "socket", "socket"),
        ]:
            with pytest.raises(ForbiddenError, match=word):
                load(path)


def test_a_link_to_a_device_is_forbidden_too(tmp_path):
    (tmp_path / "a.png").symlink_to("/dev/zero")
    with pytest.raises(ForbiddenError, match="device"):
        load(tmp_path / "a.png")


@pytest.mark.parametrize("name", ["missing.png", "a\0b", "x" * 5000, "missing/x.png", "\udcff", "concat:a|b"])
def test_missing_files(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MediaError) as caught:
        load(name)
    assert caught.value.code == "not_found"


def test_a_loop_of_links_is_not_found(tmp_path):
    (tmp_path / "a.png").symlink_to(tmp_path / "a.png")
    with pytest.raises(MediaError) as caught:
        load(tmp_path / "a.png")
    assert caught.value.code == "not_found"


def test_empty_and_oversized(tmp_path):
    (tmp_path / "empty.mp4").touch()
    for empty in (tmp_path / "empty.mp4", b""):
        with pytest.raises(MediaError) as caught:
            load(empty)
        assert caught.value.code == "empty_media"
    (tmp_path / "big.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"0" * 100)
    for big in (tmp_path / "big.png", (tmp_path / "big.png").read_bytes()):
        with pytest.raises(MediaError, match="108 bytes; the limit is 100") as caught:
            load(big, limits=Limits(max_bytes=100))
        assert caught.value.code == "too_many_bytes"


def with_free_space(path: Path, size: int) -> None:
    """Append a box of `size` bytes that is free: a hole in the file."""
    with open(path, "ab") as file:
        file.write(struct.pack(">I4s", size, b"free"))
        file.truncate(file.tell() + size - 8)


def test_a_video_in_a_file_has_no_byte_limit(make_video, numbers):
    path = make_video("a.mp4")
    expected = load_video(path)
    with_free_space(path, 300 * 2**20)
    assert path.stat().st_size > DEFAULT_LIMITS.max_bytes
    video = load(path)
    assert np.array_equal(video.frames, expected.frames)
    assert (probe(path).frames, probe(str(path)).duration) == (30, 3.0)
    assert numbers(np.stack([frame for frame, _ in video_frames(path)])) == list(range(30))
    code, _, growth, _ = measure(path, "video")
    assert code == "ok"
    assert growth < 64, f"{growth} MB"


def test_a_video_in_memory_keeps_its_limit(make_video):
    path = make_video("a.mp4")
    data = path.read_bytes()
    limits = Limits(max_bytes=len(data) - 1)
    assert load(path, limits=limits).source_frames == 30
    with pytest.raises(MediaError, match=f"{len(data)} bytes; the limit is {len(data) - 1}; give a video as a path"):
        load(data, limits=limits)


def test_a_large_file_of_no_known_format(tmp_path):
    path = tmp_path / "a.mp4"
    with open(path, "wb") as file:
        file.truncate(300 * 2**20)
    with pytest.raises(MediaError) as caught:
        load(path)
    assert caught.value.code == "unsupported_format"


def test_an_open_file(make_video):
    """As a sandboxed process gets it, which cannot open any."""
    path = make_video("a.mp4")
    file = open(path, "rb")  # noqa: SIM115 - closed by what reads it
    video = load(Source(file, "a video", path.stat().st_size), limits=Limits(max_bytes=2000))
    assert (video.name, video.source_frames, file.closed) == ("a video", 30, True)


@pytest.mark.parametrize("source", [7, None, 1.5, {}, object()])
def test_other_types_are_a_usage_error(source):
    with pytest.raises(UsageError, match=type(source).__name__):
        load(source)
    with pytest.raises(UsageError):
        load_video(source)


def test_errors_are_one_printable_line_with_the_name(tmp_path):
    path = tmp_path / "evil\n\x1b[31mred\u202e.png"
    path.write_bytes(b"nothing")
    with pytest.raises(MediaError) as caught:
        load(path)
    text = str(caught.value)
    assert text.isprintable()
    assert r"evil\n\x1b[31mred\u202e.png" in text
    assert to_printable_name("a" * 1000).startswith("aaa")
    assert len(to_printable_name("a" * 1000)) == 300


def test_all_kinds_of_bytes_and_paths(tmp_path, make_png):
    data = make_png(1, 1, 8, 0, [b"\7"])
    path = tmp_path / "a.png"
    path.write_bytes(data)
    for source in (data, bytearray(data), memoryview(data), path, str(path)):
        assert load_image(source).image.getpixel((0, 0)) == (7, 7, 7)


def test_the_file_is_closed_again(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(b"123")
    with open_source(path, DEFAULT_LIMITS) as source:
        file = source.file
    assert file.closed


TS = b"G" + bytes(187)
EBML = b"\x1a\x45\xdf\xa3\x9f\x42\x86\x81\x01\x42\x82"


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (b"\x89PNG\r\n\x1a\n", "png"),
        (b"\xff\xd8\xff\xe0", "jpeg"),
        (b"RIFF\0\0\0\0WEBP", "webp"),
        (b"GIF87a", "gif"),
        (b"GIF89a", "gif"),
        (b"BM" + bytes(12) + b"\x28\0\0\0", "bmp"),
        (b"\0\0\0\x20ftypisom", "mp4"),
        (b"\0\0\0\x20ftypM4A ", "mp4"),
        (b"\0\0\0\x20ftypqt  ", "mov"),
        (b"\0\0\0\x20moov", "mov"),
        (b"\0\0\0\x08wide", "mov"),
        (EBML + b"\x88matroska", "matroska"),
        (EBML + b"\x84webm", "webm"),
        (b"RIFF\0\0\0\0AVI LIST", "avi"),
        (TS * 4, "mpegts"),
        (bytes(4) + (TS + bytes(4)) * 4, "mpegts"),
        ((TS + bytes(16)) * 4, "mpegts"),
    ],
)
def test_formats_by_their_first_bytes(head, name):
    found = sniff(head)
    assert found is not None
    assert found.name == name


@pytest.mark.parametrize(
    "head",
    [
        b"#EXTM3U\n",
        b"ffconcat version 1.0\n",
        b"<?xml version='1.0'?><MPD/>",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"<!doctype html>",
        b"II*\0",
        b"MM\0*",
        b"\0\0\1\0\1\0",
        b"\0\0\0\x0cjP  \r\n\x87\n",
        b"\0\0\0\1\x67\x64",
        b"\0\0\0\x20ftypavif",
        b"\0\0\0\x20ftypheic",
        b"RIFF\0\0\0\0WAVE",
        EBML + b"\x84evil",
        EBML,
        b"BM in the beginning of a text",
        b"G",
        TS * 3,
        b"%PDF-1.7",
        b"%!PS-Adobe-3.0 EPSF",
        b"\0",
    ],
)
def test_everything_else_is_unknown(head):
    assert sniff(head) is None


def test_no_byte_at_all():
    with pytest.raises(MediaError) as caught:
        sniff(b"")
    assert caught.value.code == "empty_media"
