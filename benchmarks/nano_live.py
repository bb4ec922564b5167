"""Measure live sessions of the bundled model: accuracy after N frames without content, with the same items for each N.

    python benchmarks/nano_live.py [--model DIR] [--count 100] [--json FILE]

Sessions have the checkpoint's settings, as in `pvc live`. A clip is pushed after the quiet frames, and the question
follows it.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from timesteps import measure_accuracy

import pvc
from pvc.engine.live import LiveSession
from pvc.lab.evaluate.intervals import wilson

TASKS = {"direction": (1, 2), "digits": (1, 2), "pieces": (1,), "appear": (1,), "captions": (1,), "motion": (1,)}
QUIET = (0, 24, 120, 500)


def table(rows: list[dict[str, Any]]) -> list[str]:
    """Format a Markdown table with one line per task: right answers in percent with their interval."""
    lines = [f"| task | {' | '.join(f'{quiet} quiet frames' for quiet in QUIET)} |", f"|---|{'---|' * len(QUIET)}"]
    for task in TASKS:
        cells = []
        for row in (row for row in rows if row["task"] == task):
            low, high = wilson(row["right"], row["count"])
            cells.append(f"{100 * row['right'] / row['count']:.0f} ({100 * low:.0f}-{100 * high:.0f})")
        lines.append(f"| `{task}` | {' | '.join(cells)} |")
    return lines


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--count", type=int, default=100, help="items per task")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write the results to this file")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with torch.inference_mode():
        stream = LiveSession(pvc.load(options.model, device="cpu"))
        rows = measure_accuracy(stream, options.count, options.seed, TASKS, QUIET)
    print("\n".join(table(rows)))
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
