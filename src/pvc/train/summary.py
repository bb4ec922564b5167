"""What a finished training leaves for people: `summary.md` beside the run's curve, and a model card in the model.

Called by `export.py`; everything is read from the run's own files.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from pvc.train.json_lines import read_json_lines
from pvc.train.recipe import Recipe, Stage


def write_summary(recipe: Recipe, directory: Path) -> None:
    """Write `directory`/summary.md."""
    rows = _rows(directory / "curve.jsonl")
    (directory / "summary.md").write_text(_summary(recipe, directory, rows), encoding="utf-8")


def write_card(recipe: Recipe, directory: Path, target: Path, parameters: dict[str, int], fact: str = "") -> None:
    """Write the card of a model.

    Args:
        recipe: of the run, to the stage that the model is from.
        directory: of the run.
        target: directory of the model.
        parameters: numbers by part of the model.
        fact: a line about this model.
    """
    rows = _rows(directory / "curve.jsonl")
    (target / "README.md").write_text(_card(recipe, rows, parameters, fact), encoding="utf-8")


def _rows(path: Path) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for row in read_json_lines(path):
        found.setdefault(row["stage"], []).append(row)
    return found


def _summary(recipe: Recipe, directory: Path, rows: dict[str, list[dict[str, Any]]]) -> str:
    parts = [f"# {recipe.name}", "", _table(recipe, directory, rows)]
    if (directory / "curve.png").exists():
        parts += ["", "![Loss and held-out accuracy](curve.png)"]
    for stage in recipe.stages:
        if measured := _accuracy(rows.get(stage.name, [])):
            parts += ["", f"{_measured_name(stage)} right after `{stage.name}` ({stage.evaluate_count} of each):", ""]
            parts += _measured_table(stage, measured)
    if bad := _bad_rows(directory / "bad_rows.jsonl"):
        parts += ["", "Rows that were passed over (`bad_rows.jsonl` has them all):", ""]
        parts += [f"- {file}: {count:,}" for file, count in bad.items()]
    parts += ["", "The model is in `model`: `pvc ask PICTURE QUESTION --model` with its directory."]
    return "\n".join(parts) + "\n"


def _table(recipe: Recipe, directory: Path, rows: dict[str, list[dict[str, Any]]]) -> str:
    lines = [
        "| stage | steps | batch | minutes | first loss | last loss | tokens/s | visual tokens/s | padding |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for stage in recipe.stages:
        done = _done(directory / stage.name)
        losses = [row for row in rows.get(stage.name, []) if "loss" in row]
        counted = [row for row in losses if "tokens_per_second" in row]
        cells = [stage.name, f"{done.get('steps', stage.steps):,}", str(stage.batch_size)]
        cells.append(f"{done['seconds'] / 60:.1f}" if "seconds" in done else "")
        cells += [f"{losses[0]['loss']:.4f}", f"{losses[-1]['loss']:.4f}"] if losses else ["", ""]
        for key in ("tokens_per_second", "visual_tokens_per_second"):
            cells.append(f"{sum(row[key] for row in counted) / len(counted):,.0f}" if counted else "")
        cells.append(f"{sum(row['padding'] for row in counted) / len(counted):.0%}" if counted else "")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _done(stage: Path) -> dict[str, Any]:
    path = stage / "done.json"
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else {}


def _accuracy(rows: list[dict[str, Any]]) -> dict[str, float]:
    """The last measurement of every task."""
    return {row["task"]: row["accuracy"] for row in rows if "accuracy" in row}


def _bad_rows(path: Path) -> dict[str, int]:
    return dict(Counter(row["file"] for row in read_json_lines(path)))


def _measured_name(stage: Stage) -> str:
    return "Explained variance of the teacher's tokens" if stage.kind == "distill" else "Held-out answers right"


def _measured_table(stage: Stage, measured: dict[str, float]) -> list[str]:
    head = "| held-out media | explained |" if stage.kind == "distill" else "| task | right |"
    return [head, "|---|---|", *(f"| {task} | {part:.1%} |" for task, part in measured.items())]


def _sources(stage: Stage) -> str:
    files = [f"`{Path(path).name}`" for path in stage.distill.media] if stage.distill else []
    files += [f"`{Path(path).name}`" for path in stage.files]
    drawn = [f"{len(stage.tasks)} task{'s' * (len(stage.tasks) > 1)} of the synthetic world"] if stage.tasks else []
    teacher = f", from the teacher `{Path(stage.distill.teacher).name}`" if stage.distill else ""
    return ", ".join([*files, *drawn]) + teacher


def _card(recipe: Recipe, rows: dict[str, list[dict[str, Any]]], parameters: dict[str, int], fact: str) -> str:
    last = recipe.stages[-1]
    whole = sum(parameters.values())
    size = f"{whole / 1e6:,.1f} M" if whole < 1e9 else f"{whole / 1e9:,.2f} B"
    own = ", ".join(f"{part.replace('_', ' ')} {count:,}" for part, count in parameters.items())
    start = "random weights" if recipe.start is None else f"`{Path(recipe.start).name}`"
    lines = [
        "---",
        "library_name: transformers",
        "pipeline_tag: image-text-to-text",
        "tags: [pvc, video]",
        "---",
        "",
        f"# {recipe.name}",
        "",
        "A vision-language model with progressive visual token compression (PVC, arXiv 2412.09613), trained with",
        "`pvc train`.",
        "",
        "```python",
        "import pvc",
        "",
        'engine = pvc.load("path/to/this/directory")',
        'print(engine.chat().ask("What is this?", media=["photo.jpg"]).text)',
        "```",
        "",
        f"- Parameters: {size} ({own})",
        f"- Started from: {start}",
        f"- Visual tokens: ratio {last.downsample_ratio:g}, a picture in up to {last.most_steps} steps",
        "- Stages: " + "; ".join(f"`{stage.name}` on {_sources(stage)}" for stage in recipe.stages),
        *([f"- {fact}"] if fact else []),
        "- The whole recipe, with the steps that were made, is in `training.json`.",
    ]
    if measured := _accuracy(rows.get(last.name, [])):
        lines += [
            "",
            f"{_measured_name(last)}, {last.evaluate_count} of each, measured while it was trained:",
            "",
        ]
        lines += _measured_table(last, measured)
    lines += [
        "",
        "What it was not measured on it may do badly: this card was written by the training, not by a person.",
    ]
    return "\n".join(lines) + "\n"


__all__ = ["write_card", "write_summary"]
