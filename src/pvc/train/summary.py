"""Write reports of a finished training: `summary.md` next to the run's curve, and a model card in the model directory.

Everything is read from the files of the run. Called by `export.py`.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from pvc.train.json_lines import read_json_lines
from pvc.train.recipe import Recipe, Stage


def write_summary(recipe: Recipe, directory: Path) -> None:
    """Write `directory`/summary.md.

    Args:
        recipe: of the run.
        directory: of the run.
    """
    entries = _read_curve(directory / "curve.jsonl")
    (directory / "summary.md").write_text(_build_summary(recipe, directory, entries), encoding="utf-8")


def write_card(recipe: Recipe, directory: Path, target: Path, parameters: dict[str, int], fact: str = "") -> None:
    """Write the model card `target`/README.md.

    Args:
        recipe: of the run, up to the stage that the model is from.
        directory: of the run.
        target: directory of the model.
        parameters: number of parameters by part of the model.
        fact: one more line about the model.
    """
    entries = _read_curve(directory / "curve.jsonl")
    (target / "README.md").write_text(_build_card(recipe, entries, parameters, fact), encoding="utf-8")


def _read_curve(path: Path) -> dict[str, list[dict[str, Any]]]:
    """Return the entries of the curve by stage."""
    entries: dict[str, list[dict[str, Any]]] = {}
    for entry in read_json_lines(path):
        entries.setdefault(entry["stage"], []).append(entry)
    return entries


def _build_summary(recipe: Recipe, directory: Path, entries: dict[str, list[dict[str, Any]]]) -> str:
    parts = [f"# {recipe.name}", "", _build_stage_table(recipe, directory, entries)]
    if (directory / "curve.png").exists():
        parts += ["", "![Loss and held-out accuracy](curve.png)"]
    for stage in recipe.stages:
        if accuracies := _get_accuracies(entries.get(stage.name, [])):
            parts += ["", f"{_get_metric_name(stage)} right after `{stage.name}` ({stage.evaluate_count} of each):", ""]
            parts += _build_accuracy_table(stage, accuracies)
    if counts := _count_bad_records(directory / "bad_rows.jsonl"):
        parts += ["", "Bad records that were skipped (all of them are in `bad_rows.jsonl`):", ""]
        parts += [f"- {file}: {count:,}" for file, count in counts.items()]
    parts += ["", "The model is in `model`: `pvc ask PICTURE QUESTION --model` with its directory."]
    return "\n".join(parts) + "\n"


def _build_stage_table(recipe: Recipe, directory: Path, entries: dict[str, list[dict[str, Any]]]) -> str:
    lines = [
        "| stage | steps | batch | minutes | first loss | last loss | tokens/s | visual tokens/s | padding |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for stage in recipe.stages:
        done = _read_done(directory / stage.name)
        losses = [entry for entry in entries.get(stage.name, []) if "loss" in entry]
        with_rates = [entry for entry in losses if "tokens_per_second" in entry]
        cells = [stage.name, f"{done.get('steps', stage.steps):,}", str(stage.batch_size)]
        cells.append(f"{done['seconds'] / 60:.1f}" if "seconds" in done else "")
        cells += [f"{losses[0]['loss']:.4f}", f"{losses[-1]['loss']:.4f}"] if losses else ["", ""]
        for key in ("tokens_per_second", "visual_tokens_per_second"):
            cells.append(f"{sum(entry[key] for entry in with_rates) / len(with_rates):,.0f}" if with_rates else "")
        cells.append(f"{sum(entry['padding'] for entry in with_rates) / len(with_rates):.0%}" if with_rates else "")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _read_done(stage: Path) -> dict[str, Any]:
    path = stage / "done.json"
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else {}


def _get_accuracies(entries: list[dict[str, Any]]) -> dict[str, float]:
    """Return the last accuracy of every task."""
    return {entry["task"]: entry["accuracy"] for entry in entries if "accuracy" in entry}


def _count_bad_records(path: Path) -> dict[str, int]:
    return dict(Counter(entry["file"] for entry in read_json_lines(path)))


def _get_metric_name(stage: Stage) -> str:
    return "Explained variance of the teacher's tokens" if stage.kind == "distill" else "Held-out answers right"


def _build_accuracy_table(stage: Stage, accuracies: dict[str, float]) -> list[str]:
    header = "| held-out media | explained |" if stage.kind == "distill" else "| task | right |"
    return [header, "|---|---|", *(f"| {task} | {part:.1%} |" for task, part in accuracies.items())]


def _describe_data(stage: Stage) -> str:
    files = [f"`{Path(path).name}`" for path in stage.distill.media] if stage.distill else []
    files += [f"`{Path(path).name}`" for path in stage.files]
    tasks = [f"{len(stage.tasks)} task{'s' * (len(stage.tasks) > 1)} of the synthetic world"] if stage.tasks else []
    teacher = f", from the teacher `{Path(stage.distill.teacher).name}`" if stage.distill else ""
    return ", ".join([*files, *tasks]) + teacher


def _build_card(recipe: Recipe, entries: dict[str, list[dict[str, Any]]], parameters: dict[str, int], fact: str) -> str:
    last = recipe.stages[-1]
    total = sum(parameters.values())
    size = f"{total / 1e6:,.1f} M" if total < 1e9 else f"{total / 1e9:,.2f} B"
    parts = ", ".join(f"{part.replace('_', ' ')} {count:,}" for part, count in parameters.items())
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
        f"- Parameters: {size} ({parts})",
        f"- Started from: {start}",
        f"- Visual tokens: ratio {last.downsample_ratio:g}, a picture in up to {last.most_steps} steps",
        "- Stages: " + "; ".join(f"`{stage.name}` on {_describe_data(stage)}" for stage in recipe.stages),
        *([f"- {fact}"] if fact else []),
        "- The whole recipe, with the number of steps that were trained, is in `training.json`.",
    ]
    if accuracies := _get_accuracies(entries.get(last.name, [])):
        lines += [
            "",
            f"{_get_metric_name(last)}, {last.evaluate_count} of each, measured during training:",
            "",
        ]
        lines += _build_accuracy_table(last, accuracies)
    lines += [
        "",
        "This card was generated by the training. Tasks that were not measured may have a low accuracy.",
    ]
    return "\n".join(lines) + "\n"


__all__ = ["write_card", "write_summary"]
