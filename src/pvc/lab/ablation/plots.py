"""PNG plots of an ablation: paired differences, accuracy against steps, gain of each step, learning curves.

Means are thick lines, seeds thin ones. An arm has the same colour in all plots. Tables are in `tables`. Called by
`report`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from pvc.extras import require
from pvc.lab.ablation.claims import Judgement, compute_progress_by_seed
from pvc.lab.ablation.stats import MARGIN, t_interval
from pvc.lab.ablation.study_runs import StudyRuns
from pvc.lab.ablation.tables import group_by_steps, is_without_evidence

_COLOURS = (
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#cc79a7",
    "#222222",
    "#b8860b",
    "#56b4e9",
    "#7b4fa3",
    "#8c564b",
    "#7f7f7f",
)
_OUTCOMES = {"supported": "#009e73", "not supported": "#d55e00", "undecided": "#7f7f7f"}

Series = Mapping[int, Mapping[int, float]]  # by seed, then by step


def assign_colours(studies: Sequence[StudyRuns]) -> dict[str, str]:
    """Assign a colour to each arm, the same in all studies."""
    arms = sorted({arm for runs in studies for arm in runs.study.arms})
    return {arm: _COLOURS[number % len(_COLOURS)] for number, arm in enumerate(arms)}


def _pyplot() -> Any:
    require("matplotlib", "train").use("Agg")
    return require("matplotlib.pyplot", "train")


def _save(figure: Any, picture: Path) -> Path:
    # Without matplotlib's version in the file, the same records give the same bytes on one machine.
    figure.savefig(picture, dpi=110, metadata={"Software": None})
    _pyplot().close(figure)
    return picture


def _create_panels(count: int, width: float = 4.2, height: float = 3.2) -> tuple[Any, list[Any]]:
    columns = min(3, count)
    rows = -(-count // columns)
    size = (width * columns, height * rows)
    figure, axes = _pyplot().subplots(rows, columns, figsize=size, squeeze=False, layout="constrained")
    flat = list(axes.flat)
    for axis in flat[count:]:
        axis.set_visible(False)
    for axis in flat[:count]:
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    return figure, flat[:count]


def _plot_series(axis: Any, series: Series, colour: str, label: str, marker: str = "") -> None:
    """Plot every seed as a thin line, and the mean over the steps that all seeds have as a thick one."""
    common = sorted(set.intersection(*(set(points) for points in series.values())))
    for points in series.values():
        axis.plot(*zip(*sorted(points.items()), strict=True), color=colour, linewidth=0.7, alpha=0.35)
    if common:
        means = [fmean(points[step] for points in series.values()) for step in common]
        axis.plot(common, means, color=colour, linewidth=1.8, label=label, marker=marker, markersize=4)


def _add_legend(figure: Any, axes: Sequence[Any]) -> None:
    lines = {label: line for axis in axes for line, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    if lines:
        figure.legend(lines.values(), lines.keys(), loc="outside right upper", frameon=False)


def plot_claims(judgements: Sequence[Judgement], picture: Path) -> Path | None:
    """Plot the paired differences with their intervals, and each seed's difference.

    Args:
        judgements: judged claims.
        picture: file to write.

    Returns:
        `picture`; None if there are no differences.
    """
    rows = []
    for judgement in judgements:
        for finding in judgement.findings:
            contrast, estimate = finding.contrast, finding.verdict.estimate
            if estimate is None or contrast.right is None:
                continue
            name = f"({judgement.claim.letter}) {contrast.study} {contrast.left} - {contrast.right}"
            rows.append((f"    {finding.task}" if finding.task else name, estimate, finding.verdict.outcome))
    if not rows:
        return None
    pyplot = _pyplot()
    figure, axis = pyplot.subplots(figsize=(7.5, 1.3 + 0.36 * len(rows)), layout="constrained")
    axis.axvline(0, color="#222222", linewidth=0.8)
    axis.axvline(-MARGIN * 100, color="#7f7f7f", linewidth=0.8, linestyle=":")
    for row, (_, estimate, outcome) in enumerate(rows):
        colour = _OUTCOMES[outcome]
        axis.plot([v * 100 for v in estimate.values], [row] * len(estimate.values), "|", color=colour, alpha=0.7)
        if estimate.lower is not None and estimate.upper is not None:
            axis.plot([estimate.lower * 100, estimate.upper * 100], [row] * 2, color=colour, linewidth=2)
        axis.plot([estimate.mean * 100], [row], "o", color=colour, markersize=5)
    axis.set_yticks(range(len(rows)), [name for name, _, _ in rows], ha="left")
    axis.tick_params(axis="y", pad=150, length=0)
    axis.invert_yaxis()
    axis.set_xlabel("difference in points, 95 % interval; strokes: seeds; dotted: a loss of 2 points")
    axis.spines[["top", "right", "left"]].set_visible(False)
    handles = [pyplot.Line2D([], [], color=colour, marker="o", label=name) for name, colour in _OUTCOMES.items()]
    figure.legend(handles=handles, loc="outside upper right", ncols=3, frameon=False)
    return _save(figure, picture)


def plot_steps(runs: StudyRuns, palette: Mapping[str, str], picture: Path) -> Path | None:
    """Plot the accuracy against steps, with one panel per task; arms with one number of steps are dots.

    Args:
        runs: of the study.
        palette: colour by arm.
        picture: file to write.

    Returns:
        `picture`; None if no arm has several numbers of steps.
    """
    by_task = {task: group_by_steps(runs, task)[0] for task in runs.study.tasks}
    by_task = {task: arms for task, arms in by_task.items() if any(len(by_steps) > 1 for by_steps in arms.values())}
    if not by_task:
        return None
    figure, axes = _create_panels(len(by_task))
    for axis, (task, arms) in zip(axes, by_task.items(), strict=True):
        for arm, by_steps in arms.items():
            series: dict[int, dict[int, float]] = {}
            for steps, by_seed in by_steps.items():
                for seed, value in by_seed.items():
                    series.setdefault(seed, {})[steps] = value * 100
            _plot_series(
                axis,
                series,
                palette[arm],
                f"{arm} (no evidence)" if is_without_evidence(runs, arm) else arm,
                marker="o",
            )
            if len(by_steps) == 1:  # reference line for the other arms
                level = fmean(value * 100 for by_seed in by_steps.values() for value in by_seed.values())
                axis.axhline(level, color=palette[arm], linewidth=1, linestyle=":")
        ticks = sorted({steps for by_steps in arms.values() for steps in by_steps})
        word = "steps" if runs.study.kind == "image" else "frames"
        metric = "characters" if runs.get_metric(task) == "characters" else "answers"
        axis.set(title=task, xlabel=f"{word} used", ylabel=f"{metric} right, %", xticks=ticks)
    _add_legend(figure, axes)
    return _save(figure, picture)


def plot_progress(runs: StudyRuns, arm: str, picture: Path) -> Path | None:
    """Plot the gain of each step in order and over all orders, with one panel per task.

    Args:
        runs: of the study.
        arm: name of the arm.
        picture: file to write.

    Returns:
        `picture`; None if no run has all subsets.
    """
    by_task = {task: list(compute_progress_by_seed(runs, arm, task)[0].values()) for task in runs.study.tasks}
    by_task = {task: progress for task, progress in by_task.items() if progress}
    if not by_task:
        return None
    figure, axes = _create_panels(len(by_task))
    for axis, (task, progress) in zip(axes, by_task.items(), strict=True):
        kinds = (("gains", "in order", "#0072b2"), ("averaged", "all orders", "#b8cfe0"))
        for side, (kind, label, colour) in zip((-0.2, 0.2), kinds, strict=True):
            for k in range(len(progress[0].prefixes)):
                estimate = t_interval([getattr(p, kind)[k] * 100 for p in progress])
                axis.bar(k + 1 + side, estimate.mean, 0.38, color=colour, label=label if k == 0 else None)
                if estimate.upper is not None:
                    half = estimate.upper - estimate.mean
                    axis.errorbar(k + 1 + side, estimate.mean, half, color="#222222", capsize=3, linewidth=1)
        ticks = range(1, len(progress[0].prefixes) + 1)
        axis.set(title=f"{arm}, {task}", xlabel="step", ylabel="adds, points", xticks=ticks)
    _add_legend(figure, axes)
    return _save(figure, picture)


def plot_curves(runs: StudyRuns, palette: Mapping[str, str], picture: Path) -> Path | None:
    """Plot the training loss, and the teacher-forced accuracy on each task during training.

    Args:
        runs: of the study.
        palette: colour by arm.
        picture: file to write.

    Returns:
        `picture`; None if no run is finished.
    """
    if not runs.runs:
        return None
    tasks = [task for task in runs.study.tasks if any(e.task == task for r in runs.runs.values() for e in r.evals)]
    figure, axes = _create_panels(1 + len(tasks))
    for arm in runs.study.arms:
        records = runs.get_records(arm)
        loss = {record.seed: {point.step: point.loss for point in record.curve} for record in records}
        loss = {seed: points for seed, points in loss.items() if points}
        if loss:
            _plot_series(axes[0], loss, palette[arm], arm)
        for axis, task in zip(axes[1:], tasks, strict=True):
            forced = {r.seed: {e.step: e.teacher_forced * 100 for e in r.evals if e.task == task} for r in records}
            forced = {seed: points for seed, points in forced.items() if points}
            if forced:
                _plot_series(axis, forced, palette[arm], arm)
    positive = all(point.loss > 0 for record in runs.runs.values() for point in record.curve)
    axes[0].set(title="training loss", xlabel="step", ylabel="loss", yscale="log" if positive else "linear")
    for axis, task in zip(axes[1:], tasks, strict=True):
        axis.set(title=task, xlabel="step", ylabel="teacher-forced, %")
    _add_legend(figure, axes)
    return _save(figure, picture)


__all__ = [
    "assign_colours",
    "plot_claims",
    "plot_curves",
    "plot_progress",
    "plot_steps",
]
