"""Draws the training curve: one PNG from the rows that `run.py` writes while it trains."""

from __future__ import annotations

import json
from pathlib import Path

from pvc.extras import require


def draw_curve(rows: Path, picture: Path) -> None:
    """Loss over steps, one panel a stage, from JSON lines with `stage`, `step` and `loss`."""
    require("matplotlib", "train").use("Agg")
    pyplot = require("matplotlib.pyplot", "train")
    stages: dict[str, list[tuple[int, float]]] = {}
    for line in rows.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        stages.setdefault(row["stage"], []).append((row["step"], row["loss"]))
    figure, axes = pyplot.subplots(1, len(stages), figsize=(4 * len(stages), 3), squeeze=False)
    for axis, (stage, points) in zip(axes[0], stages.items(), strict=True):
        axis.plot(*zip(*sorted(dict(points).items()), strict=True), linewidth=1)
        axis.set(title=stage, xlabel="step", ylabel="loss", yscale="log")
        axis.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(picture, dpi=110)
    pyplot.close(figure)


__all__ = ["draw_curve"]
