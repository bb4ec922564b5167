"""Measure a live session of thousands of frames: time per frame and memory, early and late.

    python benchmarks/stream.py                        5,000 frames, the bundled model
    python benchmarks/stream.py --frames 600 --out /tmp/stream

Pushes synthetic frames singly, with a question after every 500. Prints median and mean time per frame for frames 100
to 200 and for the last 100, from one run. With --out, plots time and memory over the frames.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import torch

import pvc
from pvc.engine import FrameRetention
from pvc.lab.synthetic import make

EARLY = (100, 200)
CLIPS = 40  # synthetic clips whose frames are pushed in turn


def render_frames(side: int) -> list[object]:
    """Render the frames to push. Neighbours differ, so that no frame is skipped as equal."""
    return [
        frame
        for seed in range(CLIPS)
        for frame in make("direction", seed, size=side, frames=16, level=2).media[0].frames
    ]


def read_resident_bytes() -> int:
    """Read the resident memory of this process in bytes; 0 if the system does not report it."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith("VmRSS:")))


def main() -> None:
    """Push the frames, print the times and sizes, and plot them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=5000)
    parser.add_argument("--window", type=int, default=32)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=None, help="directory for stream.png")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    engine = pvc.load()
    frames = render_frames(int(dict(engine.processor.video_processor.size)["height"]))
    # The retained frames are complete before frame 100, so that early and late frames take the same work.
    keep = FrameRetention(first=4, middle=20, recent=32, batch=8)
    stream = engine.live(window=options.window, keep=keep)
    seconds, state_bytes, memory = [], [], []
    for number in range(options.frames):
        started = time.perf_counter()
        stream.push(frames[number % len(frames)], number * 0.5)
        seconds.append(time.perf_counter() - started)
        state_bytes.append(stream.nbytes)
        memory.append(read_resident_bytes())
        if number % 500 == 499:
            stream.ask("In which direction does it move?")
    late = (options.frames - 100, options.frames)
    bound = stream.max_nbytes or 0
    print(
        f"{options.frames} frames, window {options.window}, {keep.most} frames kept at most, {options.threads} threads"
    )
    for name, average in (("median", statistics.median), ("mean", statistics.fmean)):
        early_s, late_s = (average(seconds[slice(*part)]) for part in (EARLY, late))
        print(
            f"{name} per frame: {1000 * early_s:.2f} ms in frames {EARLY[0]}-{EARLY[1]}, {1000 * late_s:.2f} ms in "
            f"{late[0]}-{late[1]}: x {late_s / early_s:.3f}"
        )
    early_bytes, max_bytes = max(state_bytes[:200]), max(state_bytes)
    print(f"state: {early_bytes:,} bytes at most in the first 200 frames, {max_bytes:,} in all, bound {bound:,}")
    print(f"resident: {memory[199] / 2**20:.0f} MiB after 200 frames, {memory[-1] / 2**20:.0f} MiB at the end")
    if options.out is not None:
        plot(seconds, state_bytes, memory, bound, options.out)


def plot(seconds: list[float], state_bytes: list[int], memory: list[int], bound: int, out: Path) -> None:
    """Plot time and memory over the frames.

    Args:
        seconds: time of each frame.
        state_bytes: size of the session's state after each frame.
        memory: resident memory of the process after each frame, in bytes.
        bound: upper bound of the state's size, in bytes.
        out: directory for stream.png.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (above, below) = plt.subplots(2, 1, figsize=(8, 5.5), sharex=True)
    above.plot([1000 * value for value in seconds], ".", markersize=1)
    above.set(ylabel="ms per frame", ylim=(0, 1000 * sorted(seconds)[int(0.998 * len(seconds))]))
    below.plot([value / 2**20 for value in state_bytes], label="stream.nbytes")
    below.axhline(bound / 2**20, linestyle="--", color="C3", label="stream.max_nbytes")
    below.plot([(value - memory[0]) / 2**20 for value in memory], label="resident, growth since the first frame")
    below.set(xlabel="frame", ylabel="MiB", ylim=(0, None))
    below.legend(fontsize=8)
    for axis in (above, below):
        axis.grid(alpha=0.3)
    figure.tight_layout()
    out.mkdir(parents=True, exist_ok=True)
    figure.savefig(out / "stream.png", dpi=110)


if __name__ == "__main__":
    main()
