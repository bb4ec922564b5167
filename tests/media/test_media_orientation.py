"""A display matrix turns and mirrors a video in all eight ways, wherever it is written and however frames are read."""

from __future__ import annotations

import struct
from pathlib import Path

import av
import numpy as np
import pytest

from pvc.media import Sampling, load_video, probe
from pvc.media.limits import DEFAULT_LIMITS
from pvc.media.live import video_frames
from pvc.media.mp4 import read_index
from pvc.media.orientation import UPRIGHT, Orientation
from pvc.media.outline import outline
from pvc.media.source import open_source

Matrix = tuple[int, int, int, int]

MATRICES: dict[str, Matrix] = {
    "upright": (1, 0, 0, 1),
    "mirrored": (-1, 0, 0, 1),
    "half turn": (-1, 0, 0, -1),
    "upside down": (1, 0, 0, -1),
    "transposed": (0, 1, 1, 0),
    "quarter turn right": (0, 1, -1, 0),
    "transposed the other way": (0, -1, -1, 0),
    "quarter turn left": (0, -1, 1, 0),
}
CORNERS = ((255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255))  # top left, top right, bottom left, bottom right
HEIGHT, WIDTH = 48, 64


def oriented(frames: np.ndarray, matrix: Matrix) -> np.ndarray:
    """Every pixel (x, y) of (F, H, W, 3) at (a*x + c*y, b*x + d*y), moved so that the picture begins at 0."""
    a, b, c, d = matrix
    y, x = np.mgrid[: frames.shape[1], : frames.shape[2]]
    across, down = a * x + c * y, b * x + d * y
    across, down = across - across.min(), down - down.min()
    result = np.empty((len(frames), down.max() + 1, across.max() + 1, 3), np.uint8)
    result[:, down, across] = frames
    return result


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    """Twelve frames, each corner of another colour, with a key frame every four."""
    path = tmp_path_factory.mktemp("orientation") / "clip.mp4"
    picture = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    for place, colour in enumerate(CORNERS):
        rows, columns = divmod(place, 2)
        picture[rows * 24 : rows * 24 + 24, columns * 32 : columns * 32 + 32] = colour
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"g": "4", "crf": "5"})
        stream.height, stream.width, stream.pix_fmt = HEIGHT, WIDTH, "yuv420p"
        for _ in range(12):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path


def with_matrix(path: Path, matrix: Matrix, header: bytes = b"tkhd", scale: float = 1.0) -> bytes:
    """The MP4 with a matrix in the header of its track or of its movie."""
    data = bytearray(path.read_bytes())
    at = data.index(header) + 4 + {b"tkhd": 40, b"mvhd": 36}[header]  # of version 0
    for place, value in zip((0, 4, 12, 16), matrix, strict=True):
        data[at + place : at + place + 4] = struct.pack(">i", round(value * scale * 65536))
    return bytes(data)


def corners(frame: np.ndarray) -> list[int]:
    """Which of CORNERS is nearest, from the top left to the bottom right."""
    height, width = frame.shape[:2]
    places = [(y, x) for y in (height // 4, 3 * height // 4) for x in (width // 4, 3 * width // 4)]
    return [int(np.abs(np.subtract(CORNERS, frame[place].astype(int))).sum(1).argmin()) for place in places]


@pytest.mark.parametrize("name", MATRICES)
def test_all_turns_and_flips(clip, tmp_path, name):
    stored = load_video(clip, Sampling(frames=12)).frames
    path = tmp_path / "turned.mp4"
    path.write_bytes(with_matrix(clip, MATRICES[name]))
    expected = oriented(stored, MATRICES[name])
    video = load_video(path, Sampling(frames=12))
    assert np.array_equal(video.frames, expected)
    assert video.warnings == ()
    few = load_video(path, Sampling(frames=2))  # whole groups of pictures are left out
    assert np.array_equal(few.frames, expected[:2])
    assert np.array_equal(np.stack([frame for frame, _ in video_frames(path)]), expected)
    for seen in (probe(path), outline(path)):
        assert (seen.height, seen.width) == expected.shape[1:3]


def test_the_eight_ways_differ(clip):
    assert corners(load_video(clip).frames[0]) == [0, 1, 2, 3]
    orders = {name: corners(load_video(with_matrix(clip, matrix)).frames[0]) for name, matrix in MATRICES.items()}
    assert len({tuple(order) for order in orders.values()}) == 8
    assert orders["mirrored"] == [1, 0, 3, 2]
    assert orders["upside down"] == [2, 3, 0, 1]
    assert orders["quarter turn right"] == [2, 0, 3, 1]


@pytest.mark.parametrize("movie", ["mirrored", "quarter turn right"])
@pytest.mark.parametrize("track", ["upright", "upside down", "quarter turn left"])
def test_the_matrix_of_the_movie_comes_after_that_of_the_track(clip, tmp_path, track, movie):
    stored = load_video(clip).frames
    path = tmp_path / "a.mp4"
    path.write_bytes(with_matrix(clip, MATRICES[track]))
    data = with_matrix(path, MATRICES[movie], b"mvhd")
    frames = load_video(data).frames
    assert np.array_equal(frames, oriented(oriented(stored, MATRICES[track]), MATRICES[movie]))
    assert (probe(data).height, probe(data).width) == frames.shape[1:3]


@pytest.mark.parametrize("suffix", ["mkv", "mov"])
@pytest.mark.parametrize("name", MATRICES)
def test_other_containers(clip, tmp_path, name, suffix):
    turned, path = tmp_path / "turned.mp4", tmp_path / f"a.{suffix}"
    turned.write_bytes(with_matrix(clip, MATRICES[name]))
    with av.open(str(turned)) as container, av.open(str(path), "w") as copy:
        stream = container.streams.video[0]
        target = copy.add_stream_from_template(stream)
        for packet in container.demux(stream):
            if packet.dts is not None:
                packet.stream = target
                copy.mux(packet)
    video = load_video(path)
    assert np.array_equal(video.frames, load_video(turned).frames)
    assert corners(video.frames[0]) == corners(oriented(load_video(clip).frames[:1], MATRICES[name])[0])
    assert (probe(path).height, probe(path).width) == video.frames.shape[1:3]


def test_the_header_of_a_second_track(tmp_path):
    """The header's orientation belongs to the stream that is decoded, and not to the first one."""
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        streams = [container.add_stream("libx264", rate=10) for _ in range(2)]
        for stream, size in zip(streams, (32, 64), strict=True):
            stream.width, stream.height, stream.pix_fmt = size, size // 2, "yuv420p"
        for stream in streams:
            grey = np.zeros((stream.height, stream.width, 3), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(grey, format="rgb24")))
        for stream in streams:
            container.mux(stream.encode())
    data = with_matrix(path, MATRICES["quarter turn left"])  # of the first track
    for source in (path.read_bytes(), data):
        assert (probe(source).height, probe(source).width) == load_video(source).frames.shape[1:3]


@pytest.mark.parametrize(
    ("matrix", "expected"),
    [
        ((0, 0, 0, 0), UPRIGHT),
        ((65536, 5000, -5000, 65536), UPRIGHT),  # a turn by some degrees
        ((3, 0, 0, 5), UPRIGHT),
        ((-7, 1, 1, 7), Orientation(mirror=True)),
        ((-5000, 65536, -65536, -5000), Orientation(transpose=True, mirror=True)),
    ],
)
def test_a_matrix_counts_as_the_nearest_of_the_eight(matrix, expected):
    assert Orientation.from_matrix(*matrix) == expected


def test_scale_and_offset_are_ignored(clip):
    scaled = load_video(with_matrix(clip, MATRICES["quarter turn right"], scale=0.5)).frames
    assert np.array_equal(scaled, load_video(with_matrix(clip, MATRICES["quarter turn right"])).frames)


def test_headers_of_version_1():
    """Times of 64 bits stand before the matrix there."""
    matrix = struct.pack(">9i", 0, 65536, 0, -65536, 0, 0, 0, 0, 1 << 30)
    upright = struct.pack(">9i", 65536, 0, 0, 0, 65536, 0, 0, 0, 1 << 30)

    def box(kind: bytes, *parts: bytes) -> bytes:
        content = b"".join(parts)
        return struct.pack(">I4s", 8 + len(content), kind) + content

    movie = box(b"mvhd", b"\1\0\0\0", bytes(44), upright, bytes(28))
    track = box(b"tkhd", b"\1\0\0\0", bytes(16), struct.pack(">I", 7), bytes(28), matrix, bytes(8))
    data = box(b"ftyp", b"isom", bytes(4)) + box(b"moov", movie, box(b"trak", track))
    with open_source(data, DEFAULT_LIMITS) as source:
        assert read_index(source).orientations == {7: Orientation(transpose=True, mirror=True)}
