"""Measure start-up times, as ratios within one run to the import of torch and transformers' base class.

python benchmarks/startup.py
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

RUNS = 5
COMMANDS = {
    "python": ["-c", "pass"],
    "import pvc": ["-c", "import pvc"],
    "pvc --help": ["-m", "pvc", "--help"],
    "pvc ask refused": ["-m", "pvc", "ask", "nowhere.png", "what?"],
    "import torch, transformers": ["-c", "import torch; from transformers import PreTrainedModel"],
    "pvc ask": ["-m", "pvc", "ask", "examples/sign.png", "What does it say?"],
}


def main() -> None:
    """Run every command in turns, and print the medians."""
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(RUNS):
        for name, arguments in COMMANDS.items():
            started = time.perf_counter()
            subprocess.run([sys.executable, *arguments], capture_output=True, check=False)
            seconds[name].append(time.perf_counter() - started)
    base = statistics.median(seconds["import torch, transformers"])
    for name, values in seconds.items():
        median = statistics.median(values)
        print(f"{name:<28} {median:6.2f} s   {median / base:5.2f} x importing torch and transformers")


if __name__ == "__main__":
    main()
