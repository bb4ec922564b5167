"""The index of an MP4 is read where the standard has it: bombs are refused before FFmpeg opens them, text is text."""

from __future__ import annotations

import io
import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from pvc.errors import MediaError
from pvc.media import Limits, Sampling, load_video, probe, write_video
from pvc.media.boxes import read_boxes
from pvc.media.demuxer import DemuxerView
from pvc.media.limits import DEFAULT_LIMITS
from pvc.media.mp4 import MAX_SAMPLES, read_index
from pvc.media.source import open_source

TABLES = b"stsz stz2 stts stsc stco co64 trun elst hdlr cmov trak moov mdia"


def box(kind: bytes, content: bytes, long: bool = False) -> bytes:
    if long:
        return struct.pack(">I4sQ", 1, kind, 16 + len(content)) + content
    return struct.pack(">I4s", 8 + len(content), kind) + content


def rebuilt(data: bytes, path: list[bytes], change) -> bytes:
    """`data` with the content of the box at `path` changed, and the sizes of all boxes around it."""
    result = bytearray()
    for found in read_boxes(io.BytesIO(data), 0, len(data)):
        content = data[found.start : found.end]
        if found.kind == path[0]:
            content = rebuilt(content, path[1:], change) if path[1:] else change(content)
        result += box(found.kind, content)
    return bytes(result)


def content_of(data: bytes, path: list[bytes]) -> bytes:
    for found in read_boxes(io.BytesIO(data), 0, len(data)):
        if found.kind == path[0]:
            content = data[found.start : found.end]
            return content_of(content, path[1:]) if path[1:] else content
    raise KeyError(path)


def appended(data: bytes, path: list[bytes], more: bytes) -> bytes:
    return rebuilt(data, path, lambda content: content + more)


def index_bomb(data: bytes, count: int) -> bytes:
    """The MP4 with an index that declares `count` samples of one byte: 20 bytes of file whatever the count."""
    data = bytearray(data)
    sizes, chunks = data.index(b"stsz") + 8, data.index(b"stsc") + 12
    data[sizes : sizes + 8] = struct.pack(">II", 1, count)
    data[chunks + 4 : chunks + 8] = struct.pack(">I", count)
    return bytes(data)


SIZES = box(b"stsz", struct.pack(">III", 0, 1, 2**32 - 1))
STBL = [b"moov", b"trak", b"mdia", b"minf", b"stbl"]


@pytest.fixture
def plain(make_video) -> bytes:
    return make_video("plain.mp4").read_bytes()


@pytest.mark.parametrize("count", [MAX_SAMPLES + 1, 2**32 - 1])
def test_an_index_out_of_proportion_is_refused_unread(plain, monkeypatch, count):
    assert probe(index_bomb(plain, 40)).frames is not None
    monkeypatch.setattr(av, "open", lambda *_, **__: pytest.fail("handed to FFmpeg"))
    with pytest.raises(MediaError, match="samples; the limit is") as caught:
        probe(index_bomb(plain, count))
    assert caught.value.code == "corrupt_media"


def with_long_movie(data: bytes) -> bytes:
    movie = content_of(data, [b"moov"])
    return data[: data.rindex(b"moov") - 4] + box(b"moov", movie, long=True)


def with_open_movie(data: bytes) -> bytes:
    at = data.rindex(b"moov") - 4
    return data[:at] + bytes(4) + data[at + 4 :]


def with_free_movie(data: bytes) -> bytes:
    at = data.rindex(b"moov")
    return data[:at] + b"free" + data[at + 4 :]


def with_long_table(data: bytes) -> bytes:
    def change(content: bytes) -> bytes:
        boxes = read_boxes(io.BytesIO(content), 0, len(content))
        return b"".join(box(one.kind, content[one.start : one.end], long=one.kind == b"stsz") for one in boxes)

    return rebuilt(data, STBL, change)


def with_lying_parents(data: bytes) -> bytes:
    """The last box of every level reaches far beyond its parent; FFmpeg ends it there."""
    changed = bytearray(data)
    for tag in (b"moov", b"stbl"):
        at = changed.rindex(tag)
        changed[at - 4 : at] = b"\x7f\xff\xff\xff"
    return bytes(changed)


@pytest.mark.parametrize(
    "form", [with_long_movie, with_open_movie, with_free_movie, with_long_table, with_lying_parents]
)
def test_every_form_of_sizes(plain, monkeypatch, form):
    expected = load_video(plain)
    video = load_video(form(plain))
    assert np.array_equal(video.frames, expected.frames)
    assert video.timestamps == expected.timestamps
    monkeypatch.setattr(av, "open", lambda *_, **__: pytest.fail("handed to FFmpeg"))
    with pytest.raises(MediaError, match="samples; the limit is"):
        probe(form(index_bomb(plain, 2**32 - 1)))


def test_an_index_in_a_fragment_is_counted_too(make_video):
    path = make_video("a.mp4", container_options={"movflags": "frag_keyframe+empty_moov"})
    data = bytearray(path.read_bytes())
    at = data.index(b"trun") + 8
    data[at : at + 4] = b"\xff\xff\xff\xff"
    with pytest.raises(MediaError, match="samples; the limit is"):
        probe(bytes(data))
    with pytest.raises(MediaError, match="compressed"):
        probe(path.read_bytes() + struct.pack(">I4s", 16, b"moov") + b"\0\0\0\x08cmov")


@pytest.mark.parametrize("flags", ["", "faststart", "frag_keyframe+empty_moov"])
@pytest.mark.parametrize("suffix", ["mp4", "mov"])
def test_a_title_is_text(tmp_path, suffix, flags):
    """What people write about a video may spell the name of any table, followed by anything."""
    title = "An elephant's trunk lifts a heavy log; " + TABLES.decode() + " \x7f\x7f\x7f\x7f"
    videos = []
    for number, text in enumerate((title, "")):
        path = tmp_path / f"{number}.{suffix}"
        with av.open(str(path), "w", options={"movflags": flags} if flags else {}) as container:
            container.metadata.update({"title": text, "comment": text} if text else {})
            stream = container.add_stream("libx264", rate=10)
            stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
            for shade in range(12):
                grey = np.full((48, 64, 3), 16 * shade, np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(grey, format="rgb24")))
            container.mux(stream.encode())
        assert (b"trunk" in path.read_bytes()) is bool(text)
        videos.append(load_video(path, Sampling(frames=12)))
    assert np.array_equal(videos[0].frames, videos[1].frames)
    assert videos[0].timestamps == videos[1].timestamps
    assert videos[0].warnings == ()


@pytest.mark.parametrize(
    "content", [b"trunk " + TABLES, SIZES, box(b"stbl", SIZES)], ids=["text", "table", "table in a box"]
)
@pytest.mark.parametrize(
    "place",
    [
        [b"moov", b"udta"],
        [b"moov", b"meta"],
        [b"moov", b"trak", b"udta"],
        [b"moov", b"trak", b"mdia", b"udta"],
        [b"moov", b"trak", b"tref"],
        [b"moov", b"trak", b"edts", b"udta"],
        [*STBL, b"udta"],
        [b"udta"],
        [b"meta"],
        [b"name"],
    ],
)
def test_tables_in_other_places_are_not_read(plain, place, content):
    """FFmpeg would expand them, and no count of ours would foresee it."""
    expected = load_video(plain)
    more = box(place[-1], content if place[-1] != b"meta" else bytes(4) + content)
    sources = [plain + more]
    if place[:-1]:  # before the tables that count, and behind them
        sources = [
            rebuilt(plain, place[:-1], lambda old: more + old),
            rebuilt(plain, place[:-1], lambda old: old + more),
        ]
    for data in sources:
        video = load_video(data)
        assert np.array_equal(video.frames, expected.frames)
        assert video.source_frames == 30


def test_a_table_in_the_description_of_a_codec_is_not_read(plain):
    """FFmpeg walks the boxes behind a description's fixed part with the same handlers as everything else."""

    def change(content: bytes) -> bytes:
        entry = content[8:]
        return content[:8] + struct.pack(">I", len(entry) + len(SIZES)) + entry[4:] + SIZES

    data = rebuilt(plain, [*STBL, b"stsd"], change)
    assert np.array_equal(load_video(data).frames, load_video(plain).frames)


@pytest.mark.parametrize("place", [b"moov", b"trak", b"mdia", b"minf"])
def test_a_second_table_above_the_right_place_is_not_read(plain, place):
    path = [b"moov", b"trak", b"mdia", b"minf"]
    path = path[: path.index(place) + 1]
    for data in (rebuilt(plain, path, lambda old: SIZES + old), appended(plain, path, SIZES)):
        assert np.array_equal(load_video(data).frames, load_video(plain).frames)


def test_stray_tags_and_boxes_are_bounded(plain, monkeypatch):
    data = appended(plain, [b"moov"], box(b"udta", box(b"name", b"trun" * 200)))
    assert probe(data).frames == 30
    monkeypatch.setattr("pvc.media.mp4._MAX_STRAY_TAGS", 100)
    with pytest.raises(MediaError, match="more than 100 tags"):
        probe(data)
    monkeypatch.setattr("pvc.media.mp4._MAX_BOXES", 500)
    assert probe(plain).frames == 30
    with pytest.raises(MediaError, match="more than 500 boxes"):
        probe(appended(plain, [b"moov"], box(b"free", b"") * 500))


def test_edits_that_repeat_a_video_without_end(plain):
    """FFmpeg's index has every sample once for each edit."""

    def times(count: int) -> bytes:
        path = [b"moov", b"trak", b"edts", b"elst"]
        return rebuilt(plain, path, lambda old: old[:4] + struct.pack(">I", count) + old[8:] * count)

    assert probe(times(1)).frames == 30
    assert probe(times(3)).frames is not None
    with pytest.raises(MediaError, match="edit lists show"):
        probe(times(600_000))


def with_sound(path: Path, seconds: int) -> Path:
    """A video with uncompressed sound: every value of the wave is a sample of the index, 48,000 a second."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=1)
        stream.height, stream.width, stream.pix_fmt = 32, 32, "yuv420p"
        sound = container.add_stream("pcm_u8", rate=48_000, layout="mono")
        for index in range(seconds):
            grey = np.zeros((32, 32, 3), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(grey, format="rgb24")))
            wave = av.AudioFrame.from_ndarray(np.zeros((1, 48_000), np.uint8), format="u8", layout="mono")
            wave.sample_rate, wave.pts, wave.time_base = 48_000, index * 48_000, Fraction(1, 48_000)
            container.mux(sound.encode(wave))
        container.mux(stream.encode())
        container.mux(sound.encode())
    return path


def test_uncompressed_sound_is_not_taken_for_an_index_bomb(tmp_path):
    path = with_sound(tmp_path / "a.mov", 90)
    assert path.stat().st_size > MAX_SAMPLES
    assert probe(path).frames == 90


def test_chunks_of_sound_out_of_proportion(tmp_path):
    """FFmpeg cuts a chunk into pieces of 1,024 values, however many the table says that it has."""
    data = bytearray(with_sound(tmp_path / "a.mov", 10).read_bytes())
    at = data.index(b"stsc", data.index(b"soun"))
    runs = int.from_bytes(data[at + 8 : at + 12], "big")
    for run in range(runs):
        place = at + 16 + 12 * run
        data[place : place + 4] = struct.pack(">I", 10**9)
    with pytest.raises(MediaError, match="samples; the limit is"):
        probe(bytes(data))
    data[at + 8 : at + 12] = b"\xff\xff\xff\xff"
    with pytest.raises(MediaError, match="runs of chunks"):
        probe(bytes(data))


def test_boxes_by_their_sizes():
    def kinds(data: bytes, start: int = 0, end: int | None = None) -> list[tuple[bytes, bytes]]:
        boxes = read_boxes(io.BytesIO(data), start, len(data) if end is None else end)
        return [(one.kind, data[one.start : one.end]) for one in boxes]

    one, two = box(b"aaaa", b"12"), box(b"bbbb", b"3", long=True)
    assert kinds(one + two) == [(b"aaaa", b"12"), (b"bbbb", b"3")]
    assert kinds(one + struct.pack(">I4s", 0, b"rest") + b"xyz") == [(b"aaaa", b"12"), (b"rest", b"xyz")]
    assert kinds(one + struct.pack(">I4s", 99, b"long") + b"xyz") == [(b"aaaa", b"12"), (b"long", b"xyz")]
    assert kinds(one + two, 0, len(one) + 9) == [(b"aaaa", b"12")]  # no room for a size of 64 bits
    for size in (2, 7):
        assert kinds(one + struct.pack(">I4s", size, b"none") + two) == [(b"aaaa", b"12")]
    assert kinds(one + struct.pack(">I4sQ", 1, b"none", 15) + two) == [(b"aaaa", b"12")]
    assert kinds(b"\0\0\0\x08abc") == []


@pytest.mark.parametrize("count", [1, 2, 3, 5, 64])
def test_hidden_tags_read_as_something_else(plain, count):
    data = appended(plain, [b"moov"], box(b"udta", b"trunk sttstsz"))  # the last two overlap
    with open_source(data, DEFAULT_LIMITS) as source:
        stray_tags = read_index(source).stray_tags
        assert [data[at : at + 4] for at in stray_tags] == [b"hdlr", b"trun", b"stts", b"stsz"]
        view = DemuxerView(source, stray_tags)
        view.seek(0)
        pieces = []
        while piece := view.read(count):
            pieces.append(piece)
        changed = bytearray(data)
        for at in stray_tags:
            changed[at : at + 4] = b"skip"
        assert b"".join(pieces) == changed
        view.seek(-3, io.SEEK_END)
        assert (view.tell(), view.read()) == (len(data) - 3, b"kip")


def test_headers_are_bounded_and_packets_are_not(make_video, monkeypatch):
    """FFmpeg keeps what it reads while it opens a file, and drops packets."""
    for suffix in ("mp4", "mkv", "avi"):
        path = make_video(f"a.{suffix}", codec="mpeg4" if suffix == "avi" else "libx264")
        monkeypatch.setattr("pvc.media.demuxer.MAX_HEADER_BYTES", 100)
        with pytest.raises(MediaError, match="headers have more than 100 bytes") as caught:
            probe(path)
        assert caught.value.code == "too_many_bytes"
        with open_source(path, DEFAULT_LIMITS) as source:
            view = DemuxerView(source)
            assert len(view.read(100)) == 100
            view.finish_headers()
            assert len(view.read(1000)) == 1000
        monkeypatch.undo()
        assert probe(path).frames == 30


def test_a_packet_is_bounded(make_video):
    rng = np.random.default_rng(0)
    path = make_video("a.mp4", count=3)
    assert probe(path, Limits(max_bytes=20_000)).frames == 3
    noise = rng.integers(0, 256, (3, 240, 320, 3), dtype=np.uint8)
    write_video(path, noise, 10, crf=1)
    with pytest.raises(MediaError, match="a packet of .* bytes; the limit is 20000") as caught:
        probe(path, Limits(max_bytes=20_000))
    assert caught.value.code == "too_many_bytes"
