"""Measure samples per second of every synthetic task at 64 and 96 pixels, with one process and with several.

    python benchmarks/synthetic.py [PROCESSES] [SECONDS_PER_TASK]

Ratios are relative to `shape` at 64 pixels in the same run: the number of its samples that one sample costs. Clips
have 8 frames, and those of `long` have 64.
"""

from __future__ import annotations

import sys
import time
from concurrent.futures import ProcessPoolExecutor

from pvc.lab.synthetic import TASKS, make

BASE = ("shape", 64)
SIZES = (64, 96)
WARMUP = 300  # samples before the measurement: fonts, noise and textures are built once per process


def measure_rate(task: str, size: int, seconds: float) -> float:
    """Measure the samples per second in this process.

    Args:
        task: name of the task.
        size: side of the pictures in pixels.
        seconds: length of the measurement.
    """
    is_clip = TASKS[task].kind == "video"
    frames, level = (8 if is_clip and task != "long" else None), (1 if task == "long" else None)
    for seed in range(WARMUP // (10 if task == "long" else 1)):
        make(task, 10**6 + seed, size=size, frames=frames, level=level)
    started, count = time.perf_counter(), 0
    while (elapsed := time.perf_counter() - started) < seconds:
        make(task, count, size=size, frames=frames, level=level)
        count += 1
    return count / elapsed


def main() -> None:
    """Measure every task, and print one line for each."""
    processes = int(sys.argv[1]) if len(sys.argv) > 1 else 2
    seconds = float(sys.argv[2]) if len(sys.argv) > 2 else 1.0
    base = measure_rate(*BASE, seconds)
    print(
        f"{'task':<10} {'size':>4} {'ms per sample':>13} {'x shape 64':>11} {f'samples/s, {processes} processes':>26}"
    )
    with ProcessPoolExecutor(processes) as pool:
        for size in SIZES:
            for task in TASKS:
                alone = measure_rate(task, size, seconds)
                together = sum(pool.map(measure_rate, [task] * processes, [size] * processes, [seconds] * processes))
                times = f"{1000 / alone:>13.2f} {base / alone:>11.2f}"
                print(f"{task:<10} {size:>4} {times} {together:>26.0f}", flush=True)


if __name__ == "__main__":
    main()
