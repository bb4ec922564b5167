"""Decode plans give the frames, times and warnings of a pass over every packet, and they skip packets."""

from __future__ import annotations

import io
from array import array
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pvc.errors import MediaError
from pvc.media import Limits, Sampling, Video, load_video
from pvc.media import decode as decoding
from pvc.media.container import open_container, pick_stream, read_timeline
from pvc.media.decode_plan import Gop, PacketIndex, build_decode_plan
from pvc.media.keyframes import CLOSED, NON_REFERENCE, OPEN, PLAIN, RandomAccess, get_packet_parser
from pvc.media.limits import DEFAULT_LIMITS
from pvc.media.source import open_source, open_views

SIZE = (24, 32)
COUNT = 60
X264 = {"preset": "veryfast", "crf": "28", "sc_threshold": "0"}


def encode(
    path: Path,
    codec: str = "libx264",
    options: dict[str, str] | None = None,
    times: list[int] | None = None,
    container_options: dict[str, str] | None = None,
    count: int = COUNT,
    pix_fmt: str = "yuv420p",
) -> bytes:
    """A noisy texture that moves: every frame differs from every other, and errors of prediction would show."""
    rng = np.random.default_rng(3)
    texture = np.kron(rng.integers(0, 256, (20, 20 + count), np.uint8), np.ones((4, 4), np.uint8))
    clock = times or [40 * index for index in range(count)]
    with av.open(str(path), "w", options=container_options or {}) as container:
        stream = container.add_stream(codec, rate=25 if times is None else 1000, options=options or {})
        stream.height, stream.width, stream.pix_fmt = 64, 80, pix_fmt
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        for index, tick in enumerate(clock):
            view = np.roll(texture[:64, 2 * index :][:, :80], index, axis=0)
            frame = av.VideoFrame.from_ndarray(np.stack([view, 255 - view, view // 2], axis=-1), format="rgb24")
            frame.pts, frame.time_base = (index, Fraction(1, 25)) if times is None else (tick, Fraction(1, 1000))
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path.read_bytes()


UNEVEN = [sum((7, 40, 33, 250, 20)[k % 5] for k in range(i)) for i in range(COUNT)]

FILES: dict[str, tuple[str, dict[str, Any]]] = {
    "intra only": ("a.mp4", {"options": {**X264, "g": "1"}}),
    "gops of 12": ("a.mp4", {"options": {**X264, "g": "12", "bf": "0"}}),
    "B-frames, gops of 12": ("a.mp4", {"options": {**X264, "g": "12", "bf": "3", "b_strategy": "0"}}),
    "one group": ("a.mp4", {"options": {**X264, "g": "250", "bf": "3", "b_strategy": "0"}}),
    "fragments": (
        "a.mp4",
        {"options": {**X264, "g": "10"}, "container_options": {"movflags": "frag_keyframe+empty_moov"}},
    ),
    "uneven times": ("a.mp4", {"options": {**X264, "g": "8", "bf": "2"}, "times": UNEVEN}),
    "uneven times, Matroska": ("a.mkv", {"options": {**X264, "g": "8", "bf": "2"}, "times": UNEVEN}),
    "starts late": ("a.mkv", {"options": {**X264, "g": "9"}, "times": [5000 + tick for tick in UNEVEN]}),
    "transport stream": ("a.ts", {"options": {**X264, "g": "10", "bf": "2"}}),
    "VP9": ("a.webm", {"codec": "libvpx-vp9", "options": {"g": "10", "deadline": "realtime", "cpu-used": "8"}}),
    "VP8": ("a.webm", {"codec": "libvpx", "options": {"g": "10", "deadline": "realtime", "cpu-used": "8"}}),
    "MPEG-2": ("a.ts", {"codec": "mpeg2video", "options": {"g": "10", "bf": "2"}}),
    "MPEG-2 in Matroska": ("a.mkv", {"codec": "mpeg2video", "options": {"g": "10", "bf": "2"}}),
    "ProRes": ("a.mov", {"codec": "prores_ks", "pix_fmt": "yuv422p10le", "count": 30}),
    "Motion JPEG": ("a.mkv", {"codec": "mjpeg", "pix_fmt": "yuvj420p"}),
    "HEVC, closed": ("a.mp4", {"codec": "libx265", "options": {"x265-params": "keyint=10:open-gop=0:log-level=none"}}),
    "HEVC, open": ("a.mp4", {"codec": "libx265", "options": {"x265-params": "keyint=10:open-gop=1:log-level=none"}}),
    "AV1": ("a.mkv", {"codec": "libsvtav1", "options": {"g": "10", "preset": "12"}}),
}
# Decoding recovers at some frames, but none is an IDR: only B-frames can be left out.
OPEN_H264 = {**X264, "g": "12", "bf": "3", "b_strategy": "0", "x264-params": "open-gop=1"}
FROM_START: dict[str, tuple[str, dict[str, Any]]] = {
    "H.264, open": ("a.mp4", {"options": OPEN_H264}),
    "H.264, open, transport stream": ("a.ts", {"options": OPEN_H264}),
    "intra refresh": ("a.mp4", {"options": {**X264, "g": "12", "x264-params": "intra-refresh=1"}}),
}
# No decode plan is possible for these: no times, a codec without a packet parser, fields.
WHOLE: dict[str, tuple[str, dict[str, Any]]] = {
    "AVI": ("a.avi", {"options": {**X264, "g": "10"}}),
    "MPEG-4 part 2": ("a.mp4", {"codec": "mpeg4", "options": {"g": "10"}}),
    "interlaced": ("a.ts", {"options": {**X264, "g": "10", "x264-params": "tff=1"}}),
}


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Callable[[str], tuple[bytes, Video]]:
    """files(name): the bytes and, decoded without leaps, all frames; made once."""
    folder, made = tmp_path_factory.mktemp("leaps"), {}

    def get(name: str) -> tuple[bytes, Video]:
        if name not in made:
            suffix, arguments = {**FILES, **FROM_START, **WHOLE}[name]
            codec = arguments.get("codec", "libx264")
            if codec not in av.codecs_available:
                pytest.skip(f"this FFmpeg cannot write {codec}")
            data = encode(folder / f"{len(made)}{suffix}", **arguments)
            made[name] = data, straight(data, Sampling(frames=2 * COUNT))
        return made[name]

    return get


def straight(data: bytes, sampling: Sampling, **options: Any) -> Video:
    """`load_video` without plans: the pass over every packet."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoding, "build_decode_plan", lambda *_: None)
        return load_video(data, sampling, **options)


def leaping(data: bytes, sampling: Sampling, **options: Any) -> Video:
    """`load_video` where the pass over every packet is not allowed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoding, "_decode_all_packets", lambda *_: pytest.fail("every packet was decoded"))
        return load_video(data, sampling, **options)


def same(one: Video, other: Video) -> None:
    assert one.timestamps == other.timestamps
    assert one.frames.shape == other.frames.shape
    assert (one.frames == other.frames).all()
    assert (one.warnings, one.duration, one.source_frames) == (other.warnings, other.duration, other.source_frames)


@pytest.mark.parametrize("name", [*FILES, *FROM_START, *WHOLE])
@settings(max_examples=12, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_the_frames_are_those_of_a_whole_pass(files, name, data):
    content, everything = files(name)
    places = sorted(data.draw(st.sets(st.integers(0, len(everything.frames) - 1), min_size=1, max_size=8)))
    video = load_video(content, Sampling(times=tuple(everything.timestamps[place] for place in places)))
    assert video.timestamps == tuple(everything.timestamps[place] for place in places)
    assert (video.frames == everything.frames[places]).all()
    assert video.warnings == everything.warnings == ()


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("threads", [1, 2, 4])
def test_these_are_read_with_leaps(files, name, threads, monkeypatch):
    monkeypatch.setattr(decoding, "_THREADS", threads)
    content, everything = files(name)
    last = everything.timestamps[-1]
    for sampling in (Sampling(times=(last,)), Sampling(times=(0.1, last / 2, last)), Sampling(frames=5)):
        same(leaping(content, sampling, size=SIZE), straight(content, sampling, size=SIZE))


@pytest.mark.parametrize("name", WHOLE)
def test_these_are_not(files, name):
    content, everything = files(name)
    with pytest.raises(pytest.fail.Exception, match="every packet"):
        leaping(content, Sampling(times=(everything.timestamps[-1],)))


def packets_taken(data: bytes, wanted: list[int]) -> tuple[list[Gop] | None, int]:
    """The plan for the frames numbered `wanted`, in order of time, and how many packets there are."""
    with open_source(data, DEFAULT_LIMITS) as source, open_container(source) as container:
        stream = pick_stream(container, "a", DEFAULT_LIMITS)
        index = PacketIndex(stream)
        timeline = read_timeline(source, container, stream, DEFAULT_LIMITS, index)
    return build_decode_plan(index, [timeline.frame_pts[i] for i in wanted]), len(index.packet_pts)


@pytest.mark.parametrize("name", FROM_START)
def test_nothing_leaps_to_where_decoding_merely_recovers(files, name):
    gops, _ = packets_taken(files(name)[0], [COUNT - 1])
    assert gops is None or [gop.first for gop in gops] == [0]


def test_only_what_is_needed_is_decoded(files):
    gops, packets = packets_taken(files("gops of 12")[0], [2, 30, 31, 59])
    assert packets == COUNT
    assert gops is not None
    assert [(gop.first, len(gop.decode_mask)) for gop in gops] == [(0, 3), (24, 8), (48, 12)]
    assert all(all(gop.decode_mask) for gop in gops)
    assert packets_taken(files("gops of 12")[0], [5])[0] is None  # nothing to save
    intra, _ = packets_taken(files("intra only")[0], [0, 7, 50])
    assert intra is not None
    assert [(gop.first, gop.frames) for gop in intra] == [(0, 1), (7, 1), (50, 1)]


def test_b_frames_that_are_not_needed_are_left_out(files):
    gops, _ = packets_taken(files("one group")[0], [COUNT - 1])
    assert gops is not None and len(gops) == 1
    assert COUNT // 4 < sum(gops[0].decode_mask) < COUNT * 3 // 4


def test_dense_sampling_is_cut_into_groups_for_several_decoders(files):
    gops, _ = packets_taken(files("gops of 12")[0], list(range(COUNT)))
    assert gops is not None
    assert [gop.first for gop in gops] == [0, 12, 24, 36, 48]
    assert sum(sum(gop.decode_mask) for gop in gops) == COUNT


def test_leading_pictures_are_reached_from_the_group_before(files):
    """Frames displayed before the first frame of an open GOP but stored after it need earlier packets."""
    content, everything = files("MPEG-2")
    gops, packets = packets_taken(content, list(range(30, 40)))
    assert gops is not None
    assert gops[0].is_open
    taken = sum(sum(gop.decode_mask) for gop in gops)
    assert 10 <= taken < packets // 2
    times = everything.timestamps
    same(leaping(content, Sampling(times=times[30:40])), straight(content, Sampling(times=times[30:40])))


def test_a_flag_of_the_container_is_not_believed(files):
    """In an MP4 without a list of keyframes every packet counts as one, unlike in the headers of the frames."""
    content, everything = files("HEVC, closed")
    data = content.replace(b"stss", b"free")
    with av.open(io.BytesIO(data)) as container:
        assert all(packet.is_keyframe for packet in container.demux(video=0) if packet.size)
    gops, _ = packets_taken(data, [35])
    assert gops is not None and [gop.first for gop in gops] == [30]
    picked = Sampling(times=everything.timestamps[5::9])
    same(load_video(data, picked), straight(content, picked))


def test_a_damaged_group_sends_it_through_every_packet(files):
    content, everything = files("Motion JPEG")
    data = bytearray(content)
    starts = [i for i in range(len(data)) if data[i : i + 3] == b"\xff\xd8\xff"]
    for number in (20, 21):
        scan = data.index(b"\xff\xda", starts[number])
        data[starts[number] : scan] = bytes(scan - starts[number])
    damaged = bytes(data)
    hit = Sampling(times=(everything.timestamps[10], everything.timestamps[21], everything.timestamps[40]))
    video = load_video(damaged, hit)
    same(video, straight(damaged, hit))
    assert video.warnings[0].startswith("partial_decode: got 2 of 3 frames")
    assert video.timestamps[1] == everything.timestamps[19]


def test_damage_where_nobody_looks_costs_nothing(files):
    content, everything = files("gops of 12")
    data = bytearray(content)
    with av.open(io.BytesIO(content)) as container:
        spans = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    for at, size in spans[26:30]:
        data[at + 5 : at + size] = bytes(size - 5)
    picked = (everything.timestamps[3], everything.timestamps[50])
    video = leaping(bytes(data), Sampling(times=picked))
    assert (video.frames == everything.frames[[3, 50]]).all()
    assert video.warnings == ()


def test_a_truncated_file_is_read_from_the_start(tmp_path):
    data = encode(
        tmp_path / "a.mp4", options={**X264, "g": "10", "bf": "0"}, container_options={"movflags": "faststart"}
    )
    cut = data[: len(data) * 3 // 4]
    video = load_video(cut, Sampling(frames=COUNT))
    same(video, straight(cut, Sampling(frames=COUNT)))
    assert video.warnings[0].startswith("partial_decode: ")


def test_time_is_bounded_while_leaping(files):
    with pytest.raises(MediaError, match="longer than") as caught:
        leaping(files("gops of 12")[0], Sampling(frames=5), limits=Limits(max_decode_seconds=1e-9))
    assert caught.value.code == "too_many_frames"


def test_the_result_is_bounded_while_leaping(files, monkeypatch):
    monkeypatch.setattr("pvc.media.limits.MAX_RESULT_PIXELS", 64 * 80 * 4)
    with pytest.raises(MediaError, match="5 frames of 80x64") as caught:
        leaping(files("gops of 12")[0], Sampling(frames=5))
    assert caught.value.code == "too_many_pixels"


def test_several_decoders_have_a_smaller_limit_each(files, monkeypatch):
    """What a header declares decides how many decoders there are, so each is held to what that many may cost."""
    content, _ = files("gops of 12")
    limits: list[int] = []
    monkeypatch.setattr("pvc.media.gop_decode.configure_decoder", lambda stream, pixels, threads: limits.append(pixels))
    monkeypatch.setattr(decoding, "_THREADS", 2)
    leaping(content, Sampling(frames=5))
    assert set(limits) == {16_777_216 // 2}
    limits.clear()
    monkeypatch.setattr("pvc.media.gop_decode._MAX_DECODER_PIXELS", 64 * 80)
    leaping(content, Sampling(frames=5))
    assert limits == [Limits().max_pixels]


def test_views_of_a_file_keep_their_own_places(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(bytes(range(200)))
    for content in (path, path.read_bytes()):
        with open_source(content, DEFAULT_LIMITS) as source:
            one, other = (view.file for view in open_views(source, 2))
            assert one.read(3) == bytes([0, 1, 2])
            assert other.seek(-2, io.SEEK_END) == 198
            assert one.read(2) == bytes([3, 4])
            assert other.read() == bytes([198, 199])
            assert one.seek(5, io.SEEK_CUR) == 10 == one.tell()
            assert one.read(1) == bytes([10])


def annexb(*units: int) -> memoryview:
    return memoryview(b"".join(b"\0\0\0\1" + bytes([unit, 0x88, 0x80]) for unit in units))


@pytest.mark.parametrize(
    ("codec", "packet", "expected"),
    [
        ("h264", annexb(0x65), CLOSED),
        ("h264", annexb(0x09, 0x65, 0x65), CLOSED),
        ("h264", annexb(0x65, 0x41), PLAIN),  # the second field is no IDR picture
        ("h264", annexb(0x41), PLAIN),
        ("h264", annexb(0x01), NON_REFERENCE),
        ("h264", annexb(0x09, 0x01, 0x01), NON_REFERENCE),
        ("h264", annexb(0x06, 0x01), PLAIN),
        ("h264", annexb(0x01, 0x41), PLAIN),
        ("h264", memoryview(b"nothing"), None),
        ("hevc", annexb(19 << 1), CLOSED),
        ("hevc", annexb(21 << 1), OPEN),
        ("hevc", annexb(16 << 1), PLAIN),  # a broken link was cut out of another stream
        ("hevc", annexb(0), PLAIN),
        ("vp8", memoryview(b"\x10"), CLOSED),
        ("vp8", memoryview(b"\x11"), PLAIN),
        ("vp9", memoryview(b"\x82"), CLOSED),
        ("vp9", memoryview(b"\x86"), PLAIN),
        ("vp9", memoryview(b"\x8a"), PLAIN),
        ("vp9", memoryview(b"\x02"), None),
        ("av1", memoryview(b"\x12\0\x0a\1\0\x32\1\x10"), CLOSED),
        ("av1", memoryview(b"\x12\0\x32\1\x10"), PLAIN),
        ("av1", memoryview(b"\x12\0\x0a\1\0\x32\1\x30"), PLAIN),
        ("av1", memoryview(b"\x12\0\x0a\x7f\0"), None),
        ("av1", memoryview(b"\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff"), None),
        ("mpeg2video", memoryview(b"\0\0\1\xb3\1\0\0\1\0\0\x08\0"), OPEN),
        ("mpeg2video", memoryview(b"\0\0\1\0\0\x08\0"), PLAIN),
        ("mpeg2video", memoryview(b"\0\0\1\0\0\x18\0"), NON_REFERENCE),
        ("mjpeg", memoryview(b"\xff\xd8\xff\xdb\0\2\xff\xc4\0\2\xff\xda"), CLOSED),
        ("mjpeg", memoryview(b"\xff\xd8\xff\xdb\0\2\xff\xda\xff\xc4"), PLAIN),
        ("prores", memoryview(b"\0"), CLOSED),
    ],
)
def test_what_a_packet_says_of_itself(codec, packet, expected):
    read = get_packet_parser(codec, None)
    assert read is not None
    assert read(packet) == expected


def test_units_with_a_length_before_them():
    read = get_packet_parser("h264", b"\1\x64\0\x1f\xff\xe1\0\0")
    assert read is not None
    assert read(memoryview(b"\0\0\0\2\x65\x88")) == CLOSED
    with_headers = read(memoryview(b"\0\0\0\2\x67\x64\0\0\0\2\x68\xee\0\0\0\2\x65\x88"))
    assert with_headers is not None
    assert (with_headers.random_access, with_headers.parameter_sets) == (RandomAccess.CLOSED, b"\x67\x64\0\0\1\x68\xee")
    for wrong in (b"\0\0\0\3\x65\x88", b"\0\0\0\0", b"\0\0", b"\xff\xff\xff\xff\x65"):
        assert read(memoryview(wrong)) is None
    assert read(memoryview(b"\0\0\0\1\x65" * 5000)) is None  # more units than a picture has: not looked at


def test_a_stream_of_crumbs_is_given_up(monkeypatch):
    monkeypatch.setattr("pvc.media.keyframes.MAX_STREAM_NAL_UNITS", 5)
    read = get_packet_parser("h264", None)
    assert read is not None
    assert [read(annexb(0x41, 0x41)) for _ in range(4)] == [PLAIN, PLAIN, None, None]


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.sampled_from(["h264", "hevc", "vp8", "vp9", "av1", "mpeg2video", "mjpeg"]), st.binary(min_size=1))
def test_no_packet_upsets_a_reader(codec, data):
    read = get_packet_parser(codec, None)
    assert read is not None
    info = read(memoryview(data))
    assert info is None or isinstance(info.random_access, RandomAccess)


@pytest.fixture
def fake_index() -> Callable[..., PacketIndex]:
    def make(pts: list[int], random_access: list[RandomAccess]) -> PacketIndex:
        index = PacketIndex.__new__(PacketIndex)
        index.is_reliable = True
        index.packet_pts = array("q", pts)
        index.random_access = bytearray(random_access)
        index.non_reference = bytearray(len(pts))
        index.is_displayed = bytearray([1] * len(pts))
        return index

    return make


def test_where_times_go_back_there_is_no_entry_point(fake_index):
    """Two recordings in a row: frames after the second keyframe are displayed before the end of the first."""
    random_access = [
        RandomAccess.CLOSED,
        RandomAccess.NONE,
        RandomAccess.NONE,
        RandomAccess.CLOSED,
        RandomAccess.NONE,
        RandomAccess.CLOSED,
    ]
    gops = build_decode_plan(fake_index([0, 10, 20, 15, 16, 30], random_access), [16])
    assert gops is None  # from the first packet on
    gops = build_decode_plan(fake_index([0, 10, 20, 25, 26, 30], random_access), [26])
    assert gops is not None and gops[0].first == 3
    assert build_decode_plan(fake_index([0, 10, 20, 25, 25, 30], random_access), [30]) is None  # two frames at one time


def test_leading_pictures_of_an_entered_group_are_left_out(fake_index):
    none = RandomAccess.NONE
    index = fake_index(
        [0, 3, 1, 2, 6, 4, 5, 9, 7, 8], [RandomAccess.OPEN, none, none, none, RandomAccess.OPEN, *[none] * 5]
    )
    gops = build_decode_plan(index, [6, 9])
    assert gops == [Gop(4, bytes([1, 0, 0, 1]), 2, True)]
    gops = build_decode_plan(index, [5, 9])
    assert gops is None  # 5 needs the first group, and then nothing can be left out


def test_unknown_targets_have_no_plan(fake_index):
    index = fake_index([0, 1, 2], [RandomAccess.CLOSED] * 3)
    assert build_decode_plan(index, [2]) is not None
    assert build_decode_plan(index, [3]) is None
