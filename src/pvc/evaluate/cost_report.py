"""Costs of `pvc.evaluate.cost` as a Markdown table and as a plot of stacked bars. Called by `pvc bench`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pvc.evaluate.cost import PHASES, Cost
from pvc.extras import require

MEANING = {
    "pvc": "this library",
    "published": "copies of a picture through the whole tower, a video at once, everything again for every question",
    "base": "InternVL's recipe: ratio 1/2, one step, no temporal layers",
}


def _milliseconds(seconds: float) -> str:
    return f"{1000 * seconds:,.0f}" if seconds >= 0.1 else f"{1000 * seconds:.1f}"


def table(costs: Sequence[Cost], tokens: int) -> str:
    """Format costs as a Markdown table, with ratios to `pvc` on the same medium (above 1: slower by that factor).

    Args:
        costs: result of `measure_costs`, in the order of the rows.
        tokens: length of the answers, for the heading of their column.
    """
    columns = [*PHASES[:-1], "first token", f"generate {tokens}", "2nd question", "total", "peak, MiB"]
    lines = [
        f"| medium | way | visual tokens | {' | '.join(f'{name}' for name in columns)} |",
        f"|---|---|{'---|' * (len(columns) + 1)}",
    ]
    pvc_costs = {cost.medium: cost for cost in costs if cost.way == "pvc"}
    for cost in costs:
        base = pvc_costs.get(cost.medium)

        def cell(value: float, reference: float | None) -> str:
            ratio = "" if reference is None or reference <= 0 or cost.way == "pvc" else f" (x {value / reference:.2f})"  # noqa: B023
            return f"{_milliseconds(value)}{ratio}"

        cells = [cell(cost.seconds[phase], base.seconds[phase] if base else None) for phase in PHASES[:-1]]
        cells.append(cell(cost.first_token, base.first_token if base else None))
        cells.append(cell(cost.seconds["generate"], base.seconds["generate"] if base else None))
        cells.append(cell(cost.second, base.second if base else None))
        cells.append(cell(cost.total, base.total if base else None))
        peak = "" if cost.peak_bytes is None else f"{cost.peak_bytes / 2**20:,.0f}"
        lines.append(f"| {cost.medium} | {cost.way} | {cost.visual_tokens} | {' | '.join([*cells, peak])} |")
    return "\n".join(lines)


def draw(costs: Sequence[Cost], picture: Path) -> None:
    """Plot the phases as stacked bars, with one panel per medium.

    Args:
        costs: result of `measure_costs`.
        picture: PNG file to write.
    """
    require("matplotlib", "train").use("Agg")
    pyplot = require("matplotlib.pyplot", "train")
    media = list(dict.fromkeys(cost.medium for cost in costs))
    figure, axes = pyplot.subplots(1, len(media), figsize=(4.2 * len(media), 3.6), squeeze=False)
    for axis, medium in zip(axes[0], media, strict=True):
        panel = [cost for cost in costs if cost.medium == medium]
        bottom = [0.0] * len(panel)
        for number, phase in enumerate(PHASES):
            heights = [1000 * cost.seconds[phase] for cost in panel]
            axis.bar([cost.way for cost in panel], heights, bottom=bottom, label=phase, color=f"C{number}")
            bottom = [low + height for low, height in zip(bottom, heights, strict=True)]
        for position, (cost, top) in enumerate(zip(panel, bottom, strict=True)):
            axis.text(position, top, f"{cost.visual_tokens} tokens", ha="center", va="bottom", fontsize=8)
        axis.set(title=medium, ylabel="ms")
        axis.margins(y=0.12)
        axis.grid(axis="y", alpha=0.3)
    axes[0][-1].legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0), reverse=True)  # order of the bars
    figure.tight_layout()
    figure.savefig(picture, dpi=110)
    pyplot.close(figure)


__all__ = ["MEANING", "draw", "table"]
