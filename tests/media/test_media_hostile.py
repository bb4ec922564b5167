"""Every picture and video of shared/hostile does what its manifest says, cheaply, and opens nothing else."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

import pvc.media
from pvc.errors import MediaError
from pvc.media import Picture, Sampling, Video, load, probe
from pvc.media.container import OPEN_OPTIONS

SOURCE = Path(pvc.media.__file__).parents[2]
FOLDER = Path(__file__).parents[3] / "shared" / "hostile"

STATUS = {
    "400": {"empty_media", "aspect_ratio"},
    "413": {"too_many_pixels", "too_many_bytes", "too_many_frames"},
    "415": {"unsupported_format"},
    "422": {"corrupt_media", "no_video_stream", "no_video_frames"},
}
CODES = set().union(*STATUS.values())

# What "ok" has to mean beyond loading: checks on the result, by file.
CHECKS: dict[str, Callable[[Any], bool]] = {
    "ok_rgb.png": lambda p: p.image.size == (96, 64),
    "ok_rgb.jpg": lambda p: p.image.size == (96, 64),
    "trailing_garbage.jpg": lambda p: p.image.size == (96, 64),
    "exif_orientation6.jpg": lambda p: p.image.size == (64, 96),
    "exif_orientation_invalid99.jpg": lambda p: p.image.size == (96, 64),
    "cmyk.jpg": lambda p: np.allclose(np.asarray(p.image).mean((0, 1)), (216, 49, 49), atol=6),
    "rgb48.png": lambda p: np.asarray(p.image).min() < 64 and np.asarray(p.image).max() > 192,
    "rgba_gradient.png": lambda p: is_on_white(p, "rgba_gradient.png"),
    "gray_alpha.png": lambda p: is_on_white(p, "gray_alpha.png"),
    "palette_alpha.png": lambda p: is_on_white(p, "palette_alpha.png"),
    "one_pixel.png": lambda p: p.image.size == (1, 1),
    "ok_h264.mp4": lambda v: v.source_frames == 30 and v.duration == pytest.approx(3.0),
    "mvhd_duration_lie.mp4": lambda v: v.source_frames == 30 and v.duration == pytest.approx(3.0),
    "moov_size_lie.mp4": lambda v: v.source_frames == 30,
    "bframes_opengop.mp4": lambda v: v.timestamps == pytest.approx([i / 10 for i in range(30)]),
    "missing_duration.mkv": lambda v: v.source_frames == 20,
    "wrong_duration.mkv": lambda v: v.source_frames == 20 and v.duration < 2.1,
    "pts_offset_1h.mkv": lambda v: v.timestamps[0] == 0 and v.duration < 2.1,
    "one_frame.mp4": lambda v: len(v.frames) == 1,
    "odd_dims_65x49.mp4": lambda v: v.frames.shape[1:3] == (49, 65),
    "rotated90.mp4": lambda v: v.frames.shape[1:3] == (64, 48),
    "nonsquare_sar.mp4": lambda v: v.frames.shape[1:3] == (48, 64),
    "two_video_tracks.mp4": lambda v: v.frames.shape[1:3] == (48, 64),
    "fps_1000.mp4": lambda v: v.source_frames == 200 and v.duration == pytest.approx(0.2),
    "long_2h_1fps_1key.mp4": lambda v: v.source_frames == 7200 and len(v.frames) == 40,
    "truncated_moov_first.mp4": lambda v: (
        len(v.frames) >= 3 and any(warning.startswith("partial_decode: ") for warning in v.warnings)
    ),
    "metadata_injection.mp4": lambda v: v.warnings == () and "<" not in v.name,
}


def is_on_white(picture: Picture, name: str) -> bool:
    """Whether the result is what compositing by hand gives."""
    with Image.open(FOLDER / name) as opened:
        rgba = np.asarray(opened.convert("RGBA")).astype(float)
    alpha = rgba[..., 3:] / 255
    by_hand = rgba[..., :3] * alpha + 255 * (1 - alpha)
    return bool(np.abs(np.asarray(picture.image) - by_hand).max() <= 1)


def names() -> list[str]:
    manifest = FOLDER / "manifest.json"
    if not manifest.is_file():
        return ["(shared/hostile is absent)"]
    entries = json.loads(manifest.read_text())["files"]
    return [e["file"] for e in entries if e["kind"] in ("image", "video")]


def expectation(text: str) -> tuple[bool, set[str]]:
    """Whether the manifest allows the file to load, and the error codes it allows."""
    verdict = re.split(r"[;(:]", text)[0] if text.startswith("ok") else text.split(";")[0]
    statuses = set(re.findall(r"\b(4\d\d)\b", verdict))
    named = {code for code in CODES if code in verdict}
    allowed = named or set().union(*(STATUS[status] for status in statuses))
    if "aspect_ratio" in text:
        return True, {"aspect_ratio"}
    if text.startswith("ok") and "or 413" in text:
        allowed = STATUS["413"]
    return text.startswith(("ok", "partial")), allowed


@pytest.mark.parametrize("name", names())
def test_the_manifest_is_met(hostile, manifest, name):
    entry = manifest[name]
    may_load, codes = expectation(entry["expected"])
    assert may_load or codes, entry["expected"]
    try:
        result = load(hostile / name, kind=entry["kind"], sampling=Sampling(frames=40))
    except MediaError as error:
        refusal = error
    else:
        assert may_load, f"loaded, but expected {entry['expected']}"
        assert result.kind == entry["kind"]
        assert name not in CHECKS or CHECKS[name](result)
        probe(hostile / name)
        return
    assert refusal.code in codes, f"{refusal.code}: {refusal}"
    assert name in str(refusal)
    assert str(refusal).isprintable()
    assert "passwd" not in str(refusal).replace(name, "")


@pytest.mark.parametrize(("name", "frames"), [("animated.gif", 5), ("animated.webp", 5), ("gif_2000_frames.gif", 768)])
def test_animations_as_videos(hostile, name, frames):
    video = load(hostile / name, kind="video", sampling=Sampling(frames=768))
    assert isinstance(video, Video)
    assert len(video.frames) == frames


def test_seeking_gives_the_frame_on_display(hostile):
    everything = load(hostile / "bframes_opengop.mp4", sampling=Sampling(frames=30))
    for index in range(30):
        one = load(hostile / "bframes_opengop.mp4", sampling=Sampling(times=(index / 10 + 0.05,)))
        assert one.timestamps == (everything.timestamps[index],)
        assert (one.frames[0] == everything.frames[index]).all()


MEASURE = """
import resource, sys, time
start = time.process_time()  # others share the cores
def peak():  # of this process alone: ru_maxrss would start with that of the process it was forked from
    line = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024
import pvc.media
from pvc.errors import MediaError
kind, path = sys.argv[1:]
if sys.argv[1] == "image":
    import PIL.Image, PIL.PngImagePlugin
before = peak()
try:
    code = "ok" if pvc.media.load(path, kind=kind) else ""
except MediaError as error:
    code = error.code
print(code, peak(), peak() - before, time.process_time() - start)
"""


def measure(path: Path, kind: str) -> tuple[str, float, float, float]:
    """(error code or "ok", peak MB, growth in MB since the imports, processor seconds) of a new process that loads."""
    if not Path("/proc/self/status").is_file():
        pytest.skip("memory is measured through /proc")
    environment = os.environ | {"PYTHONPATH": str(SOURCE)}
    command = [sys.executable, "-c", MEASURE, kind, str(path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    code, *numbers = done.stdout.split()
    peak, growth, seconds = map(float, numbers)
    return code, peak, growth, seconds


def test_refusing_is_cheap(hostile, manifest):
    """Less than 1 s and 100 MB, interpreter and imports included; less than 20 MB more than those for the bombs."""
    refused = 0
    for name, entry in manifest.items():
        if entry["kind"] not in ("image", "video") or expectation(entry["expected"])[0]:
            continue
        code, peak, growth, seconds = measure(hostile / name, entry["kind"])
        assert code != "ok", name
        assert peak < 100, f"{name}: {peak} MB"
        assert seconds < 1, f"{name}: {seconds} s"
        assert "bomb" not in name or entry["kind"] != "image" or growth < 20, f"{name}: {growth} MB"
        refused += 1
    assert refused >= 25


def test_two_hours_with_one_keyframe_are_cheap(hostile):
    base = measure(hostile / "ok_h264.mp4", "video")[1]
    code, peak, _, seconds = measure(hostile / "long_2h_1fps_1key.mp4", "video")
    assert code == "ok"
    assert peak - base < 64
    assert seconds < 5


@pytest.fixture
def canary() -> Iterator[list[bytes]]:
    """What arrives at the address that the hostile playlists name."""
    try:
        server = socket.create_server(("127.0.0.1", 18099))
    except OSError as error:
        pytest.skip(f"port 18099, to which the hostile files point, is taken: {error}")
    hits: list[bytes] = []

    def serve() -> None:
        while True:
            try:
                client, _ = server.accept()
            except OSError:  # closed: the test is over
                return
            with client:
                hits.append(client.recv(1024))
                client.sendall(b"HTTP/1.0 404 Not Found\r\nContent-Length: 0\r\n\r\n")

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield hits
    server.shutdown(socket.SHUT_RDWR)
    server.close()
    thread.join(5)


def test_no_playlist_is_followed(hostile, manifest, canary):
    for name in manifest:
        if "canary" in name:
            for kind in ("video", "image", None):
                with pytest.raises(MediaError):
                    load(hostile / name, kind=kind)
    assert canary == []


def test_the_canary_sings_without_the_options(hostile, canary):
    """Guard for the test above: FFmpeg contacts the canary with default options, and not with ours."""
    for options, expected in ((dict(OPEN_OPTIONS), False), ({}, True)):
        with open(hostile / "hls_http_canary.mp4", "rb") as file, pytest.raises(av.FFmpegError):
            av.open(file, format="hls", options=options)
        assert bool(canary) is expected
