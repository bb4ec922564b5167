"""Live sessions of the bundled model: answers after N frames without content, as many items for every N.

    python benchmarks/nano_live.py [--model DIR] [--count 100] [--json FILE]

Streams have the checkpoint's own settings, as `pvc stream` has them. A clip is pushed after the quiet frames, and the
question is asked at its end.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from timesteps import measured

import pvc
from pvc.engine.live import LiveSession
from pvc.lab.evaluate.intervals import wilson

TASKS = {"direction": (1, 2), "digits": (1, 2), "pieces": (1,), "appear": (1,), "captions": (1,), "motion": (1,)}
QUIET = (0, 24, 120, 500)


def table(rows: list[dict[str, Any]]) -> list[str]:
    """Markdown: one line per task; right answers in percent with their interval."""
    lines = [f"| task | {' | '.join(f'{quiet} quiet frames' for quiet in QUIET)} |", f"|---|{'---|' * len(QUIET)}"]
    for task in TASKS:
        cells = []
        for row in (row for row in rows if row["task"] == task):
            low, high = wilson(row["right"], row["count"])
            cells.append(f"{100 * row['right'] / row['count']:.0f} ({100 * low:.0f}-{100 * high:.0f})")
        lines.append(f"| `{task}` | {' | '.join(cells)} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--count", type=int, default=100, help="items a task")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with torch.inference_mode():
        stream = LiveSession(pvc.load(options.model, device="cpu"))
        rows = measured(stream, options.count, options.seed, TASKS, QUIET)
    print("\n".join(table(rows)))
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
