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

from pvc.lab.ablation.records import TEXT_TASKS

NANO = Path(__file__).parents[1] / "src" / "pvc" / "nano"
BEGIN, END = "<!-- figures -->", "<!-- end of figures -->"


def cell(row: dict[str, Any] | None) -> str:
    """Right answers with their interval; for texts the characters beside them."""
    if row is None:
        return ""
    low, high = row["interval"]
    text = f"{100 * row['accuracy']:.0f} ({100 * low:.0f}-{100 * high:.0f})"
    return text + (f", {100 * row['characters']:.0f} ch." if row["task"] in TEXT_TASKS else "")


def table(rows: Sequence[dict[str, Any]], columns: dict[str, dict[str, Any]], tasks: Sequence[str]) -> list[str]:
    """One line a task, one column for every set of values that a row must have."""
    lines = [f"| task | {' | '.join(columns)} |", f"|---|{'---|' * len(columns)}"]
    for task in tasks:
        cells = []
        for wanted in columns.values():
            found = [row for row in rows if row["task"] == task and all(row[key] == wanted[key] for key in wanted)]
            cells.append(cell(found[0] if found else None))
        if any(cells):
            lines.append(f"| `{task}` | {' | '.join(cells)} |")
    return lines


def figures(rows: list[dict[str, Any]]) -> list[str]:
    """All tables: levels, steps of a picture, pictures in tiles, what else is held out."""
    zoomed = [row for row in rows if row.get("zoom", 1) != 1]
    rows = [row for row in rows if row.get("zoom", 1) == 1]
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    test: dict[str, Any] = {"split": "test", "image_steps": None}
    levels = {f"level {level}": {**test, "level": level} for level in (1, 2, 3, 4)}
    lines = ["Right answers in percent, with their 95 % interval; `ch.`: characters right (length less edits).", ""]
    lines += table(rows, levels, tasks)
    stepped = sorted({row["image_steps"] for row in rows if row["image_steps"] is not None})
    if stepped:
        has = {row["task"] for row in rows if row["image_steps"] is not None}
        lines += ["", "By steps of a picture, 4 tokens each (four steps are its own number):"]
        for level in (1, 2, 3):
            columns = {f"{n} step{'s'[: n > 1]}": {"image_steps": n, "split": "test", "level": level} for n in stepped}
            columns["4 steps"] = {**test, "level": level}
            lines += ["", f"Level {level}:", "", *table([r for r in rows if r["task"] in has], columns, tasks)]
    if zoomed:
        lines += ["", "The same kind of pictures drawn at 128 x 128 px and cut into four tiles and a thumbnail:", ""]
        columns = {f"level {level}": {"level": level, "split": "test"} for level in (1, 2, 3)}
        lines += table(zoomed, columns, list(dict.fromkeys(row["task"] for row in zoomed)))
    for split, what in (("fonts", "fonts"), ("colours", "colours"), ("layouts", "layouts")):
        has = {row["task"] for row in rows if row["split"] == split}
        if not has:
            continue
        columns = {
            f"level {level}, {name}": {"split": own, "image_steps": None, "level": level}
            for level in (1, 2)
            for own, name in (("test", "seen"), (split, "held out"))
        }
        lines += ["", f"With {what} that training never saw, beside those that it did:", ""]
        lines += table([row for row in rows if row["task"] in has], columns, tasks)
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
