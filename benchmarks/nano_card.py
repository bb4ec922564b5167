"""Format the accuracy of the bundled model as Markdown, from the records of `pvc lab eval --record` in training.json.

    python benchmarks/nano_card.py [MODEL_DIR]

The model card (src/pvc/nano/README.md) contains this output between two marks; `--write` replaces it there.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pvc.lab.ablation.records import TEXT_TASKS

NANO = Path(__file__).parents[1] / "src" / "pvc" / "nano"
BEGIN, END = "<!-- figures -->", "<!-- end of figures -->"


def cell(row: dict[str, Any] | None) -> str:
    """Format the right answers with their interval; for texts also the correct characters."""
    if row is None:
        return ""
    low, high = row["interval"]
    text = f"{100 * row['accuracy']:.0f} ({100 * low:.0f}-{100 * high:.0f})"
    return text + (f", {100 * row['characters']:.0f} ch." if row["task"] in TEXT_TASKS else "")


def table(rows: Sequence[dict[str, Any]], columns: dict[str, dict[str, Any]], tasks: Sequence[str]) -> list[str]:
    """Format a table with one line per task.

    Args:
        rows: the records.
        columns: for each column, the values that a record must have.
        tasks: the tasks, in order; tasks without records are omitted.

    Returns:
        Lines of Markdown.
    """
    lines = [f"| task | {' | '.join(columns)} |", f"|---|{'---|' * len(columns)}"]
    for task in tasks:
        cells = []
        for values in columns.values():
            matches = [row for row in rows if row["task"] == task and all(row[key] == values[key] for key in values)]
            cells.append(cell(matches[0] if matches else None))
        if any(cells):
            lines.append(f"| `{task}` | {' | '.join(cells)} |")
    return lines


def figures(rows: list[dict[str, Any]]) -> list[str]:
    """Format all tables: levels, steps of a picture, pictures in tiles, held-out fonts, colours and layouts."""
    zoomed = [row for row in rows if row.get("zoom", 1) != 1]
    rows = [row for row in rows if row.get("zoom", 1) == 1]
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    test: dict[str, Any] = {"split": "test", "image_steps": None}
    levels = {f"level {level}": {**test, "level": level} for level in (1, 2, 3, 4)}
    lines = ["Right answers in percent, with their 95 % interval; `ch.`: characters right (length less edits).", ""]
    lines += table(rows, levels, tasks)
    stepped = sorted({row["image_steps"] for row in rows if row["image_steps"] is not None})
    if stepped:
        with_steps = {row["task"] for row in rows if row["image_steps"] is not None}
        lines += ["", "By steps of a picture, 4 tokens each (four steps are its own number):"]
        for level in (1, 2, 3):
            columns = {f"{n} step{'s'[: n > 1]}": {"image_steps": n, "split": "test", "level": level} for n in stepped}
            columns["4 steps"] = {**test, "level": level}
            lines += ["", f"Level {level}:", "", *table([r for r in rows if r["task"] in with_steps], columns, tasks)]
    if zoomed:
        lines += ["", "The same kind of pictures drawn at 128 x 128 px and cut into four tiles and a thumbnail:", ""]
        columns = {f"level {level}": {"level": level, "split": "test"} for level in (1, 2, 3)}
        lines += table(zoomed, columns, list(dict.fromkeys(row["task"] for row in zoomed)))
    for split, what in (("fonts", "fonts"), ("colours", "colours"), ("layouts", "layouts")):
        with_split = {row["task"] for row in rows if row["split"] == split}
        if not with_split:
            continue
        columns = {
            f"level {level}, {label}": {"split": name, "image_steps": None, "level": level}
            for level in (1, 2)
            for name, label in (("test", "seen"), (split, "held out"))
        }
        lines += ["", f"With {what} that training never saw, beside those that it did:", ""]
        lines += table([row for row in rows if row["task"] in with_split], columns, tasks)
    return lines


def main() -> None:
    """Print the tables, or write them into the model card."""
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
