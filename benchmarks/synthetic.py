"""Samples a second of every task of the synthetic world at 64 and 96 pixels, with one process and with several.

Ratios are to `shape` at 64 pixels in the same run (how many of its samples one sample costs); clips have 8 frames,
`long` its own 64.

python benchmarks/synthetic.py [PROCESSES] [SECONDS A TASK]
"""

from __future__ import annotations

import sys
import time
from concurrent.futures import ProcessPoolExecutor

from pvc.lab.synthetic import TASKS, make

BASE = ("shape", 64)
SIZES = (64, 96)
WARM = 300  # samples before the clock starts: fonts, noise and textures are made once per process


def rate(task: str, size: int, seconds: float) -> float:
    """Samples a second in this process."""
    clip = TASKS[task].kind == "video"
    frames, level = (8 if clip and task != "long" else None), (1 if task == "long" else None)
    for seed in range(WARM // (10 if task == "long" else 1)):
        make(task, 10**6 + seed, size=size, frames=frames, level=level)
    started, done = time.perf_counter(), 0
    while (passed := time.perf_counter() - started) < seconds:
        make(task, done, size=size, frames=frames, level=level)
        done += 1
    return done / passed


def main() -> None:
    processes = int(sys.argv[1]) if len(sys.argv) > 1 else 2
    seconds = float(sys.argv[2]) if len(sys.argv) > 2 else 1.0
    base = rate(*BASE, seconds)
    print(f"{'task':<10} {'size':>4} {'ms a sample':>12} {'x shape 64':>11} {f'samples/s, {processes} processes':>26}")
    with ProcessPoolExecutor(processes) as pool:
        for size in SIZES:
            for task in TASKS:
                alone = rate(task, size, seconds)
                together = sum(pool.map(rate, [task] * processes, [size] * processes, [seconds] * processes))
                print(f"{task:<10} {size:>4} {1000 / alone:>12.2f} {base / alone:>11.2f} {together:>26.0f}", flush=True)


if __name__ == "__main__":
    main()
