"""Decode 64 frames of 448 x 448 RGB from a long H.264 file: PVC, OpenCV, eva-decord and a plain PyAV loop.

    python -m venv peers                                   a temporary environment: PVC needs none of these packages
    peers/bin/pip install opencv-python-headless eva-decord av numpy Pillow
    PYTHONPATH=src peers/bin/python benchmarks/decode.py --seconds 600

The files are written to a temporary folder and reused: 1080p at 30 fps with a keyframe every 250 frames, and 360p at a
variable rate. Each frame's pixels encode its number, so that wrong frames are counted. The programs run in turns,
`--repeats` times, in one process. Ratios are of medians, relative to PVC, and above 1 if PVC is faster. On a busy
machine only the CPU seconds are meaningful. A program that cannot be imported is skipped with a message.
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from pvc.media import Sampling, load_video

SIDE, BITS, UNIT = 448, 12, 1500  # a scene of 1,500 frames (6 GOPs of 250) is encoded once and repeated
# Frames (F, 448, 448, 3) uint8, and their times in seconds as the program reports them.
Result = tuple[np.ndarray, list[float]]


def render_frames(width: int, height: int, count: int) -> Iterator[av.VideoFrame]:
    """Render a moving texture with the number of each frame as a row of black and white fields at the top.

    Args:
        width: in pixels.
        height: in pixels.
        count: number of frames.
    """
    rng = np.random.default_rng(0)
    texture = np.kron(
        rng.integers(40, 216, (height // 24 + 40, width // 24 + 40), np.uint8), np.ones((24, 24), np.uint8)
    )
    for index in range(count):
        frame = av.VideoFrame(width, height, "yuv420p")
        right, down = index % 400, index // 2 % 400
        luma = texture[down : down + height, right : right + width].copy()
        for bit in range(BITS):
            luma[: height // 8, bit * width // BITS : (bit + 1) * width // BITS] = 235 if index >> bit & 1 else 16
        planes = [luma, *(np.full((height // 2, width // 2), 128 + index % 64, np.uint8),) * 2]
        for plane, values in zip(frame.planes, planes, strict=True):
            padded = np.zeros((values.shape[0], plane.line_size), np.uint8)
            padded[:, : values.shape[1]] = values
            plane.update(padded)
        yield frame


def read_numbers(frames: np.ndarray) -> list[int]:
    """Read the numbers that the pixels of frames encode."""
    centres = (np.arange(BITS) + 0.5) * SIDE / BITS
    fields = frames[:, SIDE // 16, centres.astype(int)].mean(-1) > 128
    return [int(sum(1 << bit for bit in range(BITS) if row[bit])) for row in fields]


def write_constant(path: Path, seconds: int, preset: str) -> list[float]:
    """Write the 1080p file unless it exists.

    Args:
        path: the file.
        seconds: its length.
        preset: preset of x264.

    Returns:
        The times of its frames in seconds.
    """
    total = seconds * 30
    if not path.is_file():
        unit = path.with_suffix(".unit.mp4")
        with av.open(str(unit), "w") as container:
            options = {"preset": preset, "crf": "30", "g": "250", "keyint_min": "250", "sc_threshold": "0"}
            stream = container.add_stream("libx264", rate=30, options=options)
            stream.width, stream.height, stream.pix_fmt = 1920, 1080, "yuv420p"
            for frame in render_frames(1920, 1080, min(UNIT, total)):
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
        repeat_packets(unit, path, total)
        unit.unlink()
    return [index / 30 for index in range(total)]


def repeat_packets(unit: Path, path: Path, total: int) -> None:
    """Write the packets of a file repeatedly into another one.

    Args:
        unit: the file to read.
        path: the file to write.
        total: number of packets to write.
    """
    partial = path.with_suffix(".partial.mp4")
    with av.open(str(partial), "w") as out:
        stream, written, shift = None, 0, 0
        while written < total:
            with av.open(str(unit)) as container:
                source = container.streams.video[0]
                stream = stream or out.add_stream_from_template(source)
                for packet in container.demux(source):
                    if packet.size and written < total:
                        packet.pts, packet.dts, packet.stream = packet.pts + shift, packet.dts + shift, stream
                        out.mux(packet)
                        written += 1
                shift += int(Fraction(UNIT, 30) / source.time_base)
    os.replace(partial, path)


def write_variable(path: Path, seconds: int) -> list[float]:
    """Write the 360p file, with 10 to 400 ms between frames, unless it exists.

    Args:
        path: the file.
        seconds: its length.

    Returns:
        The times of its frames in seconds.
    """
    rng, clock, times = random.Random(0), 0, []
    while clock < 1000 * seconds and len(times) < 1 << BITS:
        times.append(clock)
        clock += rng.choice((10, 20, 33, 40, 40, 100, 400))
    if not path.is_file():
        partial = path.with_suffix(".partial.mp4")
        with av.open(str(partial), "w") as container:
            stream = container.add_stream("libx264", rate=1000, options={"preset": "veryfast", "g": "60", "bf": "2"})
            stream.width, stream.height, stream.pix_fmt = 640, 360, "yuv420p"
            stream.codec_context.time_base = Fraction(1, 1000)
            for tick, frame in zip(times, render_frames(640, 360, len(times)), strict=True):
                frame.pts, frame.time_base = tick, Fraction(1, 1000)
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
        os.replace(partial, path)
    return [tick / 1000 for tick in times]


def decode_with_pvc(path: Path, moments: list[float]) -> Result:
    """Decode the frames of a file at times in seconds with PVC."""
    video = load_video(path, Sampling(times=tuple(moments)), size=(SIDE, SIDE))
    return video.frames, list(video.timestamps)


def decode_with_opencv(path: Path, moments: list[float]) -> Result:
    """Decode the frames of a file at times in seconds with OpenCV."""
    import cv2

    capture, frames, times = cv2.VideoCapture(str(path)), [], []
    for moment in moments:
        capture.set(cv2.CAP_PROP_POS_MSEC, 1000 * moment)
        has_frame, frame = capture.read()
        assert has_frame, f"OpenCV returns no frame at {moment} s"
        times.append(capture.get(cv2.CAP_PROP_POS_MSEC) / 1000)
        frames.append(cv2.cvtColor(cv2.resize(frame, (SIDE, SIDE)), cv2.COLOR_BGR2RGB))
    return np.stack(frames), times


def decode_with_decord(path: Path, moments: list[float]) -> Result:
    """Decode the frames of a file at times in seconds with eva-decord."""
    import decord

    reader = decord.VideoReader(str(path), width=SIDE, height=SIDE)
    starts = reader.get_frame_timestamp(range(len(reader)))[:, 0]
    indices = np.maximum(np.searchsorted(starts, np.asarray(moments) + 1e-4, side="right") - 1, 0)
    return reader.get_batch(list(indices)).asnumpy(), [float(starts[index]) for index in indices]


def decode_with_pyav(path: Path, moments: list[float]) -> Result:
    """Decode the frames of a file at times in seconds with PyAV.

    For each time it seeks to the keyframe before it, and decodes up to the last frame that is not later.
    """
    frames, times = [], []
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        for moment in moments:
            container.seek(int(moment / stream.time_base), stream=stream)
            current = None
            for frame in container.decode(stream):
                if current is not None and frame.time > moment + 1e-4:
                    break
                current = frame
            picture = current.reformat(SIDE, SIDE, "rgb24", interpolation="BICUBIC")
            frames.append(picture.to_ndarray())
            times.append(current.time)
    return np.stack(frames), times


PROGRAMS: dict[str, tuple[str, Callable[[Path, list[float]], Result]]] = {
    "ours": ("pvc", decode_with_pvc),
    "OpenCV": ("cv2", decode_with_opencv),
    "eva-decord": ("decord", decode_with_decord),
    "PyAV loop": ("av", decode_with_pyav),
}


def measure(path: Path, frame_times: list[float], moments: list[float], repeats: int, names: list[str]) -> None:
    """Print a table: median seconds, ratio to PVC, wrong frames and the largest error of a time.

    Args:
        path: the file.
        frame_times: true times of all its frames in seconds.
        moments: times to decode in seconds.
        repeats: measurements of each program.
        names: the programs, keys of PROGRAMS; ratios are relative to the first.
    """
    seconds: dict[str, list[float]] = {name: [] for name in names}
    cpu: dict[str, list[float]] = {name: [] for name in names}
    last: dict[str, Result] = {}
    for turn in range(repeats):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            started, cpu_started = time.perf_counter(), time.process_time()
            last[name] = PROGRAMS[name][1](path, moments)
            seconds[name].append(time.perf_counter() - started)
            cpu[name].append(time.process_time() - cpu_started)
    expected = np.maximum(np.searchsorted(frame_times, np.asarray(moments) + 1e-6, side="right") - 1, 0)
    half = statistics.median(np.diff(frame_times)) / 2
    print(
        "| program | seconds, each run | median | ratio | CPU seconds | ratio | wrong frames | largest error of time |"
    )
    print("|---|---|---|---|---|---|---|---|")
    first, first_cpu = statistics.median(seconds[names[0]]), statistics.median(cpu[names[0]])
    is_repeated = len(frame_times) > 1 << BITS  # numbers then start again with every scene
    for name in names:
        frames, times = last[name]
        numbers = read_numbers(frames)
        wrong = sum(a != (b % UNIT if is_repeated else b) for a, b in zip(numbers, expected, strict=True))
        error = max(abs(stamp - frame_times[index]) for stamp, index in zip(times, expected, strict=True))
        runs = ", ".join(f"{value:.2f}" for value in seconds[name])
        median, median_cpu = statistics.median(seconds[name]), statistics.median(cpu[name])
        print(
            f"| {name} | {runs} | {median:.2f} | {median / first:.2f} | {median_cpu:.2f} | "
            f"{median_cpu / first_cpu:.2f} | {wrong} of {len(expected)} | "
            f"{1000 * error:.1f} ms ({error / half / 2:.2f} frames) |"
        )


def main() -> None:
    """Write the files, run the programs and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=600, help="length of the 1080p file")
    parser.add_argument("--frames", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--preset", default="ultrafast", help="of x264; superfast and slower presets have B-frames")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "pvc-benchmark-decode")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    names = []
    for name, (module, _) in PROGRAMS.items():
        try:
            __import__(module)
            names.append(name)
        except ImportError as error:
            print(f"{name} is skipped: {error}")
    constant = options.folder / f"1080p-{options.seconds}s-{options.preset}.mp4"
    variable = options.folder / "360p-variable.mp4"
    for path, frame_times in (
        (constant, write_constant(constant, options.seconds, options.preset)),
        (variable, write_variable(variable, min(60, options.seconds))),
    ):
        step = frame_times[-1] / options.frames
        moments = [(index + 0.5) * step for index in range(options.frames)]
        size = path.stat().st_size / 2**20
        print(f"\n{path.name}: {len(frame_times)} frames, {size:.0f} MiB, {os.cpu_count()} CPUs, ", end="")
        print(f"Python {platform.python_version()}, PyAV {av.__version__}; {options.frames} frames of {SIDE}x{SIDE}\n")
        measure(path, frame_times, moments, options.repeats, names)


if __name__ == "__main__":
    main()
