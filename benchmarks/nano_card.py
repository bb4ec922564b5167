"""The bundled model's figures as Markdown, from what `pvc eval --record` wrote into its training.json.

    python benchmarks/nano_card.py [MODEL_DIR]

The model card (src/pvc/nano/README.md) holds what this prints, between its two marks; `--write` puts it there.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pvc.ablation.records import TEXT_TASKS

NANO = Path(__file__).parents[1] / "src" / "pvc" / "nano"
BEGIN, END = "<!-- figures -->", "<!-- end of figures -->"


def cell(row: dict[str, Any] | None) -> str:
    """Right answers with their interval; for texts the characters beside them."""
    if row is None:
        return ""
    low, high = row["interval"]
    text = f"{100 * row['accuracy']:.0f} ({100 * low:.0f}-{100 * high:.0f})"
    return text + (f", {100 * row['characters']:.0f} ch." if row["task"] in TEXT_TASKS else "")


def table(rows: Sequence[dict[str, Any]], by: str, columns: Sequence[Any], names: Sequence[str]) -> list[str]:
    """One line a task, one column for each value of `by`."""
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    lines = [f"| task | {' | '.join(names)} |", f"|---|{'---|' * len(names)}"]
    for task in tasks:
        found = {row[by]: row for row in rows if row["task"] == task}
        lines.append(f"| `{task}` | {' | '.join(cell(found.get(column)) for column in columns)} |")
    return lines


def figures(rows: list[dict[str, Any]]) -> list[str]:
    """All tables: levels, held-out splits, steps."""
    own = [row for row in rows if row["image_steps"] is None]
    test = [row for row in own if row["split"] == "test" and row["level"] is not None]
    lines = ["Right answers in percent, with their 95 % interval; `ch.`: characters right (length less edits).", ""]
    lines += table(test, "level", (1, 2, 3, 4), [f"level {level}" for level in (1, 2, 3, 4)])
    mixed = [row for row in own if row["level"] is None]
    if mixed:
        splits = [split for split in ("test", "fonts", "colours", "layouts") if any(r["split"] == split for r in mixed)]
        lines += ["", "All levels drawn evenly, by what else is held out:", "", *table(mixed, "split", splits, splits)]
    stepped = [row for row in rows if row["image_steps"] is not None]
    if stepped:
        steps = sorted({row["image_steps"] for row in stepped})
        lines += ["", "By steps of a picture (4 tokens each), all levels:", ""]
        lines += table(stepped, "image_steps", steps, [f"{step} step{'s'[: step > 1]}" for step in steps])
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", type=Path, default=NANO)
    parser.add_argument("--write", action="store_true", help="put the tables into the model's README.md")
    options = parser.parse_args()
    training = json.loads((options.model / "training.json").read_text(encoding="utf-8"))
    text = "\n".join(figures(training["accuracy"]))
    if not options.write:
        print(text)
        return
    card = options.model / "README.md"
    before, rest = card.read_text(encoding="utf-8").split(BEGIN)
    card.write_text(f"{before}{BEGIN}\n{text}\n{END}{rest.split(END)[1]}", encoding="utf-8")


if __name__ == "__main__":
    main()
