"""Videos: true times, one pass, damage survived and reported, nothing opened besides the bytes given."""

from __future__ import annotations

import io
import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from pvc.errors import ForbiddenError, MediaError, UsageError
from pvc.media import Limits, Sampling, load_video
from pvc.media.container import OPEN_OPTIONS

ALL = Sampling(frames=100)


@pytest.mark.parametrize(
    ("name", "form", "options"),
    [
        ("a.mp4", "mp4", {}),
        ("a.mp4", "mp4", {"container_options": {"movflags": "frag_keyframe+empty_moov"}}),
        ("a.mov", "mov", {}),
        ("a.mov", "mov", {"codec": "prores_ks", "pix_fmt": "yuv422p10le"}),
        ("a.mkv", "matroska", {}),
        ("a.webm", "webm", {"codec": "libvpx-vp9"}),
        ("a.webm", "webm", {"codec": "libvpx"}),
        ("a.avi", "avi", {}),
        ("a.avi", "avi", {"codec": "mpeg4", "options": {"bf": "2", "b": "4000000"}}),
        ("a.avi", "avi", {"codec": "mjpeg", "pix_fmt": "yuvj420p"}),
        ("a.ts", "mpegts", {}),
        ("a.mp4", "mp4", {"codec": "mpeg4"}),
    ],
)
def test_every_container(make_video, numbers, name, form, options):
    path = make_video(name, count=30, fps=10, **options)
    for source in (path, path.read_bytes()):
        video = load_video(source, Sampling(frames=6))
        assert video.format == form
        assert video.warnings == ()
        assert video.source_frames == 30
        assert video.frames.shape == (6, 48, 64, 3)
        assert video.duration == pytest.approx(3.0, abs=0.11)
        assert numbers(video.frames) == [2, 7, 12, 17, 22, 27]
        assert video.timestamps == pytest.approx([0.2, 0.7, 1.2, 1.7, 2.2, 2.7])


def test_the_default_is_sixteen_frames(make_video):
    assert len(load_video(make_video("a.mp4")).frames) == 16


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_variable_frame_rate_has_true_times(make_video, numbers, name):
    times = [0, 40, 80, 500, 520, 1900, 1950, 2600]
    path = make_video(name, times=times)
    video = load_video(path, ALL)
    assert video.timestamps == pytest.approx([t / 1000 for t in times])
    assert numbers(video.frames) == list(range(8))
    at = load_video(path, Sampling(times=(0.0, 0.499, 0.5, 1.899, 2.0)))
    assert numbers(at.frames) == [0, 2, 3, 4, 6]
    assert numbers(load_video(path, Sampling(fps=2.0)).frames) == [0, 3, 4, 6]  # 0.5, 1.0 and 1.5, 2.0 and 2.5


def test_b_frames_come_in_the_order_of_presentation(make_video, numbers):
    options = {"bf": "5", "b_strategy": "0", "g": "12", "x264-params": "open-gop=1"}
    for name in ("a.mp4", "a.mkv", "a.avi", "a.ts"):
        path = make_video(name, count=40, options=options)
        assert numbers(load_video(path, Sampling(frames=40)).frames) == list(range(32)) + list(range(8))
        for index in (0, 11, 13, 25, 39):
            video = load_video(path, Sampling(times=(index / 10 + 0.05,)))
            assert numbers(video.frames) == [index % 32]
            assert video.timestamps == pytest.approx([index / 10])


def test_matroska_rounding_loses_no_frames(make_video, numbers):
    """At 30 frames a second the second frame is stored at 0.033 and the third at 0.067, above 2/30."""
    path = make_video("a.mkv", count=30, fps=30)
    assert numbers(load_video(path, Sampling(fps=30.0)).frames) == list(range(30))
    assert numbers(load_video(path, Sampling(fps=15.0)).frames) == list(range(0, 30, 2))


def test_times_are_rebased(make_video):
    video = load_video(make_video("a.mkv", times=[5000, 5100, 5300]), ALL)
    assert video.timestamps == pytest.approx((0.0, 0.1, 0.3))


def test_a_time_outside_is_a_usage_error(make_video):
    with pytest.raises(UsageError, match="outside the video"):
        load_video(make_video("a.mp4"), Sampling(times=(3.2,)))


def test_frames_are_resized_to_height_and_width(make_video, numbers):
    video = load_video(make_video("a.mp4"), Sampling(frames=3), size=(32, 20))
    assert video.frames.shape == (3, 32, 20, 3)
    assert numbers(video.frames) == [5, 15, 25]


@pytest.mark.parametrize("size", [(0, 5), (5,), 5, (5.0, 5), "ab", (5, 5, 5), (True, 5)])
def test_a_wrong_size_is_a_usage_error(size):
    with pytest.raises(UsageError, match="size"):
        load_video(b"anything", size=size)


def test_the_default_stream_wins_over_a_larger_one(tmp_path):
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        streams = []
        for size in (32, 64, 48):
            stream = container.add_stream("libx264", rate=10)
            stream.height, stream.width, stream.pix_fmt = size, size, "yuv420p"
            streams.append(stream)
        for stream in streams:
            grey = np.zeros((stream.height, stream.width, 3), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(grey, format="rgb24")))
        for stream in streams:
            container.mux(stream.encode())
    with av.open(str(path)) as container:
        flags = [bool(s.disposition & av.stream.Disposition.default) for s in container.streams.video]
    expected = 64 if not any(flags) else (32, 64, 48)[flags.index(True)]
    assert load_video(path).frames.shape[1] == expected


def test_a_codec_that_is_not_on_the_list(make_video):
    path = make_video("a.mkv", count=2, codec="jpeg2000", pix_fmt="rgb24")
    with pytest.raises(MediaError, match="jpeg2000 is not read") as caught:
        load_video(path)
    assert caught.value.code == "unsupported_format"


def test_no_decoder_runs_before_the_size_is_checked(make_video, monkeypatch):
    path = make_video("a.mp4", count=2)
    for name in ("decode._decode_packets", "decode.GopDecoder"):
        monkeypatch.setattr(f"pvc.media.{name}", lambda *_: pytest.fail("decoded"))
    with pytest.raises(MediaError, match="64x48 is 3072 pixels; the limit is 3071") as caught:
        load_video(path, limits=Limits(max_pixels=3071))
    assert caught.value.code == "too_many_pixels"


def test_the_decoder_has_a_limit_of_its_own(make_video):
    """A header with a wrong size passes the first check, but not the second."""
    data = bytearray(make_video("a.mp4", count=2, size=(480, 640)).read_bytes())
    at = data.index(b"avc1", data.index(b"stsd")) + 28
    assert struct.unpack(">HH", data[at : at + 4]) == (640, 480)
    data[at : at + 4] = struct.pack(">HH", 64, 48)
    assert load_video(bytes(data)).frames.shape == (2, 480, 640, 3)
    with pytest.raises(MediaError) as caught:
        load_video(bytes(data), limits=Limits(max_pixels=10_000))
    assert caught.value.code in ("corrupt_media", "too_many_pixels")


def test_too_many_frames_are_refused_before_anything_is_read():
    with pytest.raises(MediaError, match="769 frames; the limit is 768") as caught:
        load_video(b"\0\0\0\x18ftypisom no video at all", Sampling(frames=769))
    assert caught.value.code == "too_many_frames"


def test_walking_is_bounded(make_video):
    with pytest.raises(MediaError, match="more than 29 packets") as caught:
        load_video(make_video("a.mp4"), limits=Limits(max_source_frames=29))
    assert caught.value.code == "too_many_frames"


def test_time_is_bounded(make_video):
    with pytest.raises(MediaError, match="longer than") as caught:
        load_video(make_video("a.mp4"), limits=Limits(max_decode_seconds=1e-9))
    assert caught.value.code == "too_many_frames"


def test_the_result_is_bounded(make_video, monkeypatch):
    monkeypatch.setattr("pvc.media.limits.MAX_RESULT_PIXELS", 48 * 64 * 10)
    assert len(load_video(make_video("a.mp4"), Sampling(frames=10)).frames) == 10
    with pytest.raises(MediaError, match="11 frames of 64x48 are 33792 pixels; the limit is 30720"):
        load_video(make_video("b.mp4"), Sampling(frames=11))
    with pytest.raises(MediaError, match="100x400"):
        load_video(make_video("c.mp4"), Sampling(frames=1), size=(400, 100))


def noise_video(path: Path, count: int = 60) -> bytes:
    """A video with enough bits in each frame that a flipped one hits picture data."""
    rng = np.random.default_rng(0)
    texture = rng.integers(0, 255, (96, 96 + 2 * count, 3), np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"crf": "30", "g": "12"})
        stream.height, stream.width, stream.pix_fmt = 96, 96, "yuv420p"
        for i in range(count):
            view = np.ascontiguousarray(texture[:, 2 * i : 2 * i + 96])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(view, format="rgb24")))
        container.mux(stream.encode())
    return path.read_bytes()


def damage(data: bytes, seed: int) -> bytes:
    """`data` with thirty bits flipped in its packets."""
    rng, damaged = np.random.default_rng(seed), bytearray(data)
    start = data.index(b"mdat") + 8
    end = data.index(b"moov", start) if b"moov" in data[start:] else len(data)
    for place in rng.integers(start + 800, end, 30):
        damaged[place] ^= 1 << int(rng.integers(8))
    return bytes(damaged)


def test_damage_is_reported_and_does_not_depend_on_threads(tmp_path, monkeypatch):
    data = noise_video(tmp_path / "a.mp4")
    reported = 0
    for seed in range(4):
        damaged, results = damage(data, seed), []
        for threads in (1, 2, 4):
            monkeypatch.setattr("pvc.media.decode._THREADS", threads)
            results.append(load_video(damaged, Sampling(frames=20)))
        for other in results[1:]:
            assert (other.frames == results[0].frames).all()
            assert other.warnings == results[0].warnings
            assert other.timestamps == results[0].timestamps
        reported += any(warning.startswith("partial_decode: got ") for warning in results[0].warnings)
    assert reported


def blank_jpegs(path: Path, which: range) -> bytes:
    """A Motion JPEG file with zeros in place of the pictures numbered `which`."""
    data = bytearray(path.read_bytes())
    starts = [i for i in range(len(data)) if data[i : i + 3] == b"\xff\xd8\xff"]
    for index in which:
        end = data.index(b"\xff\xd9", starts[index]) + 2
        data[starts[index] : end] = bytes(end - starts[index])
    return bytes(data)


def test_packets_that_fail_cost_their_own_frames_only(make_video, numbers):
    """Motion JPEG packets stand alone: without the tenth to fourteenth, the ninth frame stays on display."""
    data = blank_jpegs(make_video("a.mkv", codec="mjpeg", pix_fmt="yuvj420p"), range(10, 15))
    video = load_video(data, ALL)
    assert numbers(video.frames) == [*range(10), *range(15, 30)]
    assert video.warnings == (
        "partial_decode: got 25 of 30 frames requested; packets that failed: 5, decoded pictures that are damaged: 0",
    )
    at = load_video(data, Sampling(times=(0.5, 1.25, 2.0)))
    assert numbers(at.frames) == [5, 9, 20]
    assert at.timestamps == pytest.approx((0.5, 0.9, 2.0))


def test_frames_that_are_only_counted_stay_in_step(make_video, numbers):
    """AVI stores no presentation times: a packet that fails still takes its place."""
    data = blank_jpegs(make_video("a.avi", codec="mjpeg", pix_fmt="yuvj420p"), range(10, 15))
    assert numbers(load_video(data, ALL).frames) == [*range(10), *range(15, 30)]


def test_a_file_cut_short_gives_what_is_there(make_video, numbers):
    path = make_video("a.mp4", container_options={"movflags": "faststart"}, options={"bf": "0", "g": "5"})
    data = path.read_bytes()
    video = load_video(data[: len(data) * 7 // 8], ALL)
    there = len(video.frames)
    assert 3 <= there < 30
    assert numbers(video.frames) == list(range(there))
    assert video.warnings[0].startswith("partial_decode: got ")
    assert "of 30 frames" in video.warnings[0]


def test_a_stream_that_begins_between_key_frames(make_video, numbers):
    """What cannot be decoded before the first key frame is missing without any error of the decoder."""
    data = make_video("a.ts", options={"g": "10", "bf": "2"}).read_bytes()
    video = load_video(data[188 * 20 :], ALL)
    assert numbers(video.frames) == list(range(10, 30))
    assert video.timestamps[0] > 0
    assert video.warnings[0].startswith("partial_decode: got 20 of ")


def test_nothing_decodable_is_corrupt(make_video):
    data = blank_jpegs(make_video("a.mkv", count=3, codec="mjpeg", pix_fmt="yuvj420p"), range(3))
    with pytest.raises(MediaError) as caught:
        load_video(data)
    assert caught.value.code == "corrupt_media"
    assert caught.value.__cause__ is not None


def test_a_change_of_size_is_resized_and_said(tmp_path):
    """Two transport streams one after the other are one stream with a new size in the middle."""
    data = b""
    for number, size in enumerate((64, 96)):
        path = tmp_path / f"{size}.ts"
        with av.open(str(path), "w") as container:
            stream = container.add_stream("mpeg2video", rate=25)
            stream.height, stream.width, stream.pix_fmt = size, size, "yuv420p"
            for index in range(10):
                frame = av.VideoFrame.from_ndarray(np.zeros((size, size, 3), np.uint8), format="rgb24")
                frame.pts, frame.time_base = number * 10 + index, Fraction(1, 25)
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
        data += path.read_bytes()
    video = load_video(data, ALL)
    assert video.frames.shape[1:] == (64, 64, 3)
    assert any(warning.startswith("size_changed: ") for warning in video.warnings)


def test_the_options_block_other_files(tmp_path):
    """Even with a playlist's demuxer forced, which the loaders never do."""
    neighbour = tmp_path / "neighbour.ts"
    with av.open(str(neighbour), "w") as container:
        stream = container.add_stream("mpeg2video", rate=25)
        stream.height, stream.width, stream.pix_fmt = 32, 32, "yuv420p"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")))
        container.mux(stream.encode())
    script = f"ffconcat version 1.0\nfile 'file:{neighbour}'\n".encode()
    with av.open(io.BytesIO(script), format="concat", options={"safe": "0"}) as container:
        assert len(container.streams.video) == 1  # what happens without the options
    with pytest.raises(av.FFmpegError):
        av.open(io.BytesIO(script), format="concat", options={"safe": "0"} | OPEN_OPTIONS)
    with pytest.raises(MediaError) as caught:
        load_video(script)
    assert caught.value.code == "unsupported_format"


def test_addresses_are_forbidden():
    with pytest.raises(ForbiddenError):
        load_video("http://127.0.0.1/a.mp4")
