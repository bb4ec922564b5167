"""Plot the training curve as a PNG from the entries that `stage_log.py` appends. Called by `pipeline.py`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pvc.extras import require
from pvc.train.json_lines import read_json_lines


def plot_curve(source: Path, target: Path) -> None:
    """Plot the loss over steps, one panel per stage, and below it the held-out accuracy where it was measured.

    A resumed run writes the steps after its last checkpoint twice; the later entry counts. If there is no loss (a run
    whose time ended before its first entry), no file is written.

    Args:
        source: JSON lines with `stage`, `step`, and `loss` or `task` and `accuracy`.
        target: PNG to write.
    """
    losses, accuracies = _read(source)
    if not losses:
        return
    require("matplotlib", "train").use("Agg")
    pyplot = require("matplotlib.pyplot", "train")
    stages = list(losses)
    num_rows = 2 if accuracies else 1
    figure, axes = pyplot.subplots(num_rows, len(stages), figsize=(4.8 * len(stages), 3.4 * num_rows), squeeze=False)
    for column, stage in enumerate(stages):
        axis = axes[0][column]
        axis.plot(*zip(*sorted(losses[stage].items()), strict=True), linewidth=1)
        axis.set(title=stage, xlabel="step", ylabel="loss", yscale="log")
        axis.grid(alpha=0.3)
        if accuracies:
            _plot_accuracy(axes[1][column], accuracies.get(stage, {}))
    figure.tight_layout()
    figure.savefig(target, dpi=110)
    pyplot.close(figure)


def _read(source: Path) -> tuple[dict[str, dict[int, float]], dict[str, dict[str, dict[int, float]]]]:
    """Return losses by stage and step, and accuracies by stage, task and step."""
    losses: dict[str, dict[int, float]] = {}
    accuracies: dict[str, dict[str, dict[int, float]]] = {}
    for entry in read_json_lines(source):
        if "loss" in entry:
            losses.setdefault(entry["stage"], {})[entry["step"]] = entry["loss"]
        else:
            accuracies.setdefault(entry["stage"], {}).setdefault(entry["task"], {})[entry["step"]] = entry["accuracy"]
    return losses, accuracies


def _plot_accuracy(axis: Any, tasks: dict[str, dict[int, float]]) -> None:
    if not tasks:
        axis.axis("off")
        return
    for number, (task, points) in enumerate(tasks.items()):
        style = ("-", "--", ":")[number // 10 % 3]  # matplotlib has ten colours
        axis.plot(*zip(*sorted(points.items()), strict=True), style, marker=".", linewidth=1, label=task)
    axis.set(xlabel="step", ylabel="held-out answers right", ylim=(0, 1))
    axis.grid(alpha=0.3)
    # Below the panel, because there may be twenty tasks.
    axis.legend(fontsize=7, ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.2))


__all__ = ["plot_curve"]
