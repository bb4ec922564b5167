"""What `make demo` runs: the bundled model answers about the example files, on this computer's CPU, offline."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pvc

HERE = Path(__file__).parent
QUESTIONS = [
    ("sign.png", "What does it say?", "42"),
    ("chart.png", "Which bar is the tallest?", "blue"),
    ("shapes.mp4", "In which direction does the red circle move?", "right"),
    ("digits.mp4", "Which digits appear, in order?", "472"),
]


def main() -> int:
    """Ask every question; returns the number of wrong answers."""
    started = time.perf_counter()
    model = pvc.load()
    print(f"{model.name}: loaded in {time.perf_counter() - started:.1f} s")
    wrong = 0
    for name, question, expected in QUESTIONS:
        answer = model.chat().ask(question, media=[HERE / name])
        right = answer.text == expected
        wrong += not right
        took = sum(answer.timing.values())
        print(f"\n$ pvc ask examples/{name} {question!r}")
        print(f"{answer}" + ("" if right else f"      (it should be {expected})"))
        print(f"  {answer.visual_tokens} visual tokens, {took * 1000:.0f} ms")
    print(f"\n{len(QUESTIONS) - wrong} of {len(QUESTIONS)} right")
    return wrong


if __name__ == "__main__":
    sys.exit(main())
