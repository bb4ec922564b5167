"""Media made on the spot: videos whose frames carry their number, hand-built PNGs, and the shared hostile files."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

LEVEL = 8  # grey steps between the frames of a numbered video: wide enough to survive any codec


@pytest.fixture(scope="session")
def hostile() -> Path:
    folder = Path(__file__).parents[3] / "shared" / "hostile"
    if not (folder / "manifest.json").is_file():
        pytest.skip("shared/hostile is not beside this checkout; it is handed out separately")
    return folder


@pytest.fixture(scope="session")
def manifest(hostile: Path) -> dict[str, dict[str, Any]]:
    return {entry["file"]: entry for entry in json.loads((hostile / "manifest.json").read_text())["files"]}


@pytest.fixture
def make_video(tmp_path: Path) -> Callable[..., Path]:
    """make_video(name, count=30, fps=10, times=None, size=(48, 64), codec=..., ...) writes a numbered video.

    `times`: presentation times in milliseconds instead of a constant rate.
    """

    def make(
        name: str,
        count: int = 30,
        fps: int = 10,
        times: Sequence[int] | None = None,
        size: tuple[int, int] = (48, 64),
        codec: str = "libx264",
        pix_fmt: str = "yuv420p",
        options: dict[str, str] | None = None,
        container_options: dict[str, str] | None = None,
    ) -> Path:
        path = tmp_path / name
        with av.open(str(path), "w", options=container_options or {}) as container:
            stream = container.add_stream(codec, rate=fps if times is None else 1000, options=options or {})
            stream.height, stream.width = size
            stream.pix_fmt = pix_fmt
            if times is not None:
                stream.codec_context.time_base = Fraction(1, 1000)
            for index in range(count if times is None else len(times)):
                grey = np.full((*size, 3), index * LEVEL % 256, np.uint8)
                frame = av.VideoFrame.from_ndarray(grey, format="rgb24")
                if times is not None:
                    frame.pts, frame.time_base = times[index], Fraction(1, 1000)
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
        return path

    return make


@pytest.fixture(scope="session")
def numbers() -> Callable[[np.ndarray], list[int]]:
    """Which frames of a numbered video these are."""
    return lambda frames: [round(float(frame[6:-6, 6:-6].mean()) / LEVEL) for frame in frames]


@pytest.fixture(scope="session")
def make_png() -> Callable[..., bytes]:
    """make_png(width, height, depth, colour_type, rows, trns=None, palette=None): a PNG from raw rows of bytes."""

    def chunk(tag: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + tag + data + struct.pack(">I", zlib.crc32(tag + data))

    def make(
        width: int,
        height: int,
        depth: int,
        colour: int,
        rows: Sequence[bytes],
        trns: bytes | None = None,
        palette: bytes | None = None,
    ) -> bytes:
        header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
        parts = [chunk(b"IHDR", header)]
        parts += [chunk(b"PLTE", palette)] if palette else []
        parts += [chunk(b"tRNS", trns)] if trns else []
        parts += [chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows))), chunk(b"IEND", b"")]
        return b"\x89PNG\r\n\x1a\n" + b"".join(parts)

    return make


@pytest.fixture
def make_animation(tmp_path: Path) -> Callable[..., Path]:
    """make_animation(name, durations_ms): one flat numbered frame for each duration."""

    def make(name: str, durations: Sequence[int], size: tuple[int, int] = (24, 32)) -> Path:
        pictures = [
            Image.new("RGB", (size[1], size[0]), (i * LEVEL, i * LEVEL, i * LEVEL)) for i in range(len(durations))
        ]
        path = tmp_path / name
        extra: dict[str, Any] = {"lossless": True} if name.endswith(".webp") else {}
        pictures[0].save(
            path, save_all=True, append_images=pictures[1:], duration=list(durations), loop=0, optimize=False, **extra
        )
        return path

    return make
