"""64 frames, resized to 448 x 448 RGB, out of a long H.264 file: ours against OpenCV, eva-decord and a plain PyAV loop.

    python -m venv peers                                   a throw-away environment: PVC itself needs none of these
    peers/bin/pip install opencv-python-headless eva-decord av numpy Pillow
    PYTHONPATH=src peers/bin/python benchmarks/decode.py --seconds 600

Makes the files itself, kept in a temporary folder: 1080p at 30 frames a second, a key frame every 250, and one at a
variable rate. Every picture carries its number, so it is the pixels that tell which frame was given. All programs
run in turn, `--repeats` times, in one process; ratios are to ours, of medians, above 1 where ours is faster. On a
machine that is busy with other things only the CPU seconds mean much. A peer that cannot be imported is left out,
which is said.
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

SIDE, BITS, UNIT = 448, 12, 1500  # a scene of 1,500 pictures (6 groups of 250) is encoded once and repeated
Result = tuple[np.ndarray, list[float]]
"""Pictures (F, 448, 448, 3) and the times, in seconds, that the program says they have."""


def pictures(width: int, height: int, count: int) -> Iterator[av.VideoFrame]:
    """A texture that moves, with the number of each picture as a row of black and white fields on top."""
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


def numbers(frames: np.ndarray) -> list[int]:
    """The numbers that the pictures carry."""
    centres = (np.arange(BITS) + 0.5) * SIDE / BITS
    fields = frames[:, SIDE // 16, centres.astype(int)].mean(-1) > 128
    return [int(sum(1 << bit for bit in range(BITS) if row[bit])) for row in fields]


def make_constant(path: Path, seconds: int, preset: str) -> list[float]:
    """Writes the 1080p file unless it is there; the times of its frames."""
    total = seconds * 30
    if not path.is_file():
        unit = path.with_suffix(".unit.mp4")
        with av.open(str(unit), "w") as container:
            options = {"preset": preset, "crf": "30", "g": "250", "keyint_min": "250", "sc_threshold": "0"}
            stream = container.add_stream("libx264", rate=30, options=options)
            stream.width, stream.height, stream.pix_fmt = 1920, 1080, "yuv420p"
            for frame in pictures(1920, 1080, min(UNIT, total)):
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
        repeat(unit, path, total)
        unit.unlink()
    return [index / 30 for index in range(total)]


def repeat(unit: Path, path: Path, total: int) -> None:
    """The packets of `unit` again and again, until there are `total`."""
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


def make_variable(path: Path, seconds: int) -> list[float]:
    """Writes 360p with gaps of 10 to 400 ms unless it is there; the times of its frames."""
    draw, clock, times = random.Random(0), 0, []
    while clock < 1000 * seconds and len(times) < 1 << BITS:
        times.append(clock)
        clock += draw.choice((10, 20, 33, 40, 40, 100, 400))
    if not path.is_file():
        partial = path.with_suffix(".partial.mp4")
        with av.open(str(partial), "w") as container:
            stream = container.add_stream("libx264", rate=1000, options={"preset": "veryfast", "g": "60", "bf": "2"})
            stream.width, stream.height, stream.pix_fmt = 640, 360, "yuv420p"
            stream.codec_context.time_base = Fraction(1, 1000)
            for tick, frame in zip(times, pictures(640, 360, len(times)), strict=True):
                frame.pts, frame.time_base = tick, Fraction(1, 1000)
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
        os.replace(partial, path)
    return [tick / 1000 for tick in times]


def ours(path: Path, moments: list[float]) -> Result:
    video = load_video(path, Sampling(times=tuple(moments)), size=(SIDE, SIDE))
    return video.frames, list(video.timestamps)


def with_opencv(path: Path, moments: list[float]) -> Result:
    import cv2

    capture, frames, times = cv2.VideoCapture(str(path)), [], []
    for moment in moments:
        capture.set(cv2.CAP_PROP_POS_MSEC, 1000 * moment)
        good, picture = capture.read()
        assert good, f"OpenCV gives no frame at {moment} s"
        times.append(capture.get(cv2.CAP_PROP_POS_MSEC) / 1000)
        frames.append(cv2.cvtColor(cv2.resize(picture, (SIDE, SIDE)), cv2.COLOR_BGR2RGB))
    return np.stack(frames), times


def with_decord(path: Path, moments: list[float]) -> Result:
    import decord

    reader = decord.VideoReader(str(path), width=SIDE, height=SIDE)
    starts = reader.get_frame_timestamp(range(len(reader)))[:, 0]
    indices = np.maximum(np.searchsorted(starts, np.asarray(moments) + 1e-4, side="right") - 1, 0)
    return reader.get_batch(list(indices)).asnumpy(), [float(starts[index]) for index in indices]


def with_pyav(path: Path, moments: list[float]) -> Result:
    """For each moment a seek to the key frame before it, then forward to the last frame that does not come later."""
    frames, times = [], []
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        for moment in moments:
            container.seek(int(moment / stream.time_base), stream=stream)
            shown = None
            for frame in container.decode(stream):
                if shown is not None and frame.time > moment + 1e-4:
                    break
                shown = frame
            picture = shown.reformat(SIDE, SIDE, "rgb24", interpolation="BICUBIC")
            frames.append(picture.to_ndarray())
            times.append(shown.time)
    return np.stack(frames), times


PROGRAMS: dict[str, tuple[str, Callable[[Path, list[float]], Result]]] = {
    "ours": ("pvc", ours),
    "OpenCV": ("cv2", with_opencv),
    "eva-decord": ("decord", with_decord),
    "PyAV loop": ("av", with_pyav),
}


def measure(path: Path, true: list[float], moments: list[float], repeats: int, names: list[str]) -> None:
    """Print a table: median seconds, ratio to ours, wrong frames and the largest error of a time."""
    spent: dict[str, list[float]] = {name: [] for name in names}
    cpu: dict[str, list[float]] = {name: [] for name in names}
    last: dict[str, Result] = {}
    for turn in range(repeats):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            started, worked = time.perf_counter(), time.process_time()
            last[name] = PROGRAMS[name][1](path, moments)
            spent[name].append(time.perf_counter() - started)
            cpu[name].append(time.process_time() - worked)
    wanted = np.maximum(np.searchsorted(true, np.asarray(moments) + 1e-6, side="right") - 1, 0)
    half = statistics.median(np.diff(true)) / 2
    print(
        "| program | seconds, each run | median | ratio | CPU seconds | ratio | wrong frames | largest error of time |"
    )
    print("|---|---|---|---|---|---|---|---|")
    first, first_cpu = statistics.median(spent[names[0]]), statistics.median(cpu[names[0]])
    for name in names:
        frames, times = last[name]
        found = numbers(frames)
        other = sum(a != b % UNIT if len(true) > 1 << BITS else a != b for a, b in zip(found, wanted, strict=True))
        error = max(abs(stamp - true[index]) for stamp, index in zip(times, wanted, strict=True))
        runs = ", ".join(f"{value:.2f}" for value in spent[name])
        median, work = statistics.median(spent[name]), statistics.median(cpu[name])
        print(
            f"| {name} | {runs} | {median:.2f} | {median / first:.2f} | {work:.2f} | {work / first_cpu:.2f} | "
            f"{other} of {len(wanted)} | {1000 * error:.1f} ms ({error / half / 2:.2f} frames) |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=600, help="length of the 1080p file")
    parser.add_argument("--frames", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--preset", default="ultrafast", help="of x264; from superfast on there are B-frames")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "pvc-benchmark-decode")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    names = []
    for name, (module, _) in PROGRAMS.items():
        try:
            __import__(module)
            names.append(name)
        except ImportError as error:
            print(f"{name} is left out: {error}")
    constant = options.folder / f"1080p-{options.seconds}s-{options.preset}.mp4"
    variable = options.folder / "360p-variable.mp4"
    for path, true in (
        (constant, make_constant(constant, options.seconds, options.preset)),
        (variable, make_variable(variable, min(60, options.seconds))),
    ):
        step = true[-1] / options.frames
        moments = [(index + 0.5) * step for index in range(options.frames)]
        print(
            f"\n{path.name}: {len(true)} frames, {path.stat().st_size / 2**20:.0f} MiB, {os.cpu_count()} CPUs, ", end=""
        )
        print(f"Python {platform.python_version()}, PyAV {av.__version__}; {options.frames} frames of {SIDE}x{SIDE}\n")
        measure(path, true, moments, options.repeats, names)


if __name__ == "__main__":
    main()
