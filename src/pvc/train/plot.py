"""Draws the training curve: one PNG from the rows that `run_stage.py` writes while it trains."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pvc.extras import require
from pvc.train.json_lines import read_json_lines


def draw_curve(rows: Path, picture: Path) -> None:
    """Loss over steps, one panel a stage, and below it held-out accuracy where it was measured.

    `rows` are JSON lines with `stage`, `step`, and `loss` or `task` and `accuracy`. A resumed run writes the steps
    after its last checkpoint twice; the later row counts. Without any loss (a run that ended by the clock before its
    first row) nothing is drawn.
    """
    losses, measured = _read(rows)
    if not losses:
        return
    require("matplotlib", "train").use("Agg")
    pyplot = require("matplotlib.pyplot", "train")
    stages = list(losses)
    high = 2 if measured else 1
    figure, axes = pyplot.subplots(high, len(stages), figsize=(4.8 * len(stages), 3.4 * high), squeeze=False)
    for column, stage in enumerate(stages):
        axis = axes[0][column]
        axis.plot(*zip(*sorted(losses[stage].items()), strict=True), linewidth=1)
        axis.set(title=stage, xlabel="step", ylabel="loss", yscale="log")
        axis.grid(alpha=0.3)
        if measured:
            _draw_accuracy(axes[1][column], measured.get(stage, {}))
    figure.tight_layout()
    figure.savefig(picture, dpi=110)
    pyplot.close(figure)


def _read(rows: Path) -> tuple[dict[str, dict[int, float]], dict[str, dict[str, dict[int, float]]]]:
    losses: dict[str, dict[int, float]] = {}
    measured: dict[str, dict[str, dict[int, float]]] = {}
    for row in read_json_lines(rows):
        if "loss" in row:
            losses.setdefault(row["stage"], {})[row["step"]] = row["loss"]
        else:
            measured.setdefault(row["stage"], {}).setdefault(row["task"], {})[row["step"]] = row["accuracy"]
    return losses, measured


def _draw_accuracy(axis: Any, tasks: dict[str, dict[int, float]]) -> None:
    if not tasks:
        axis.axis("off")
        return
    for number, (task, points) in enumerate(tasks.items()):
        style = ("-", "--", ":")[number // 10 % 3]  # matplotlib has ten colours
        axis.plot(*zip(*sorted(points.items()), strict=True), style, marker=".", linewidth=1, label=task)
    axis.set(xlabel="step", ylabel="held-out answers right", ylim=(0, 1))
    axis.grid(alpha=0.3)
    # Below, for there may be twenty tasks.
    axis.legend(fontsize=7, ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.2))


__all__ = ["draw_curve"]
