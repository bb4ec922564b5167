"""Markdown tables of one study: its arms, their accuracy, accuracy against steps, and the gain of each step.

Planned arms without a finished run are in the tables as "not run". Claims are in `summary`, plots in `plots`. Called by
`report` and `plots`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import fmean

from pvc.lab.ablation.claims import compute_progress_by_seed
from pvc.lab.ablation.records import Result, RunRecord
from pvc.lab.ablation.stats import Estimate, t_interval
from pvc.lab.ablation.study_runs import Metric, StudyRuns, compute_share, get_counts
from pvc.lab.ablation.summary import format_points, format_table
from pvc.lab.evaluate.intervals import wilson

NO_EVIDENCE = (
    "F is listed for completeness: without AdaLN every step of a still picture is computed alike, so its steps are "
    "identical by construction. It is no evidence about temporal attention."
)
_NAMES: dict[Metric, str] = {"characters": "characters", "exact": "answers", "teacher_forced": "teacher-forced"}


def is_without_evidence(runs: StudyRuns, arm: str) -> bool:
    """Return whether an arm's steps are equal by construction: arm F on still pictures."""
    return runs.study.kind == "image" and arm == "F"


def _format_label(runs: StudyRuns, arm: str) -> str:
    return f"{arm} †" if is_without_evidence(runs, arm) else arm


def format_interval(estimate: Estimate) -> str:
    """Format an accuracy in per cent with its interval, clipped to 0 and 100."""
    if estimate.lower is None or estimate.upper is None:
        return format_points(estimate.mean)
    lower, upper = max(0.0, estimate.lower), min(1.0, estimate.upper)
    return f"{format_points(estimate.mean)} ({format_points(lower)} to {format_points(upper)})"


def _format_range(values: Sequence[float], show: Callable[[float], str]) -> str:
    """Format one figure if all runs agree, else the lowest and the highest."""
    texts = list(dict.fromkeys(map(show, sorted(values))))
    return texts[0] if len(texts) == 1 else f"{texts[0]} to {texts[-1]}"


def _millions(count: float) -> str:
    return f"{count / 1e6:.3f}"


def build_arms_table(runs: StudyRuns) -> str:
    """Build the table of arms: description, settings and cost of the training."""
    rows = []
    for arm, description in runs.study.arms.items():
        records = runs.get_records(arm)
        label = f"{_format_label(runs, arm)} | {description}".split(" | ", 1)
        if not records:
            rows.append([*label, str(runs.study.default_steps[arm]), *["not run"] * 5, f"0 of {len(runs.study.seeds)}"])
            continue

        def summarize(get: Callable[[RunRecord], float], show: Callable[[float], str], records: list[RunRecord]) -> str:
            return _format_range([get(record) for record in records], show)

        parts = (lambda r: r.parameters.total, lambda r: r.parameters.temporal, lambda r: r.parameters.projector)
        rows.append(
            [
                *label,
                str(runs.study.default_steps[arm]),
                summarize(lambda r: r.tokens, lambda n: f"{n:.0f}", records),
                " / ".join(summarize(part, _millions, records) for part in parts),
                summarize(lambda r: r.train.samples, lambda n: f"{n / 1000:,.1f}", records),
                f"{fmean(record.train.cpu_seconds for record in records) / 60:.1f}",
                ", ".join(sorted({record.train.start or "nothing" for record in records})),
                f"{len(records)} of {len(runs.study.seeds)}",
            ]
        )
    steps = "steps" if runs.study.kind == "image" else "frames"
    header = ("arm", "what it is", steps, "tokens", "parameters, M: all / temporal / projector", "samples, k")
    return format_table((*header, "CPU min", "from", "runs"), rows)


def _format_cell(results: list[Result], metric: Metric) -> str:
    """Format the mean over seeds with its interval; for one seed, Wilson's interval over its test items (marked ¹)."""
    shares = [value for result in results if (value := compute_share(result, metric)) is not None]
    if not shares:
        return "-"
    if len(shares) == 1:
        right, total = next(pair for result in results if (pair := get_counts(result, metric))[1])
        low, high = wilson(right, total)
        return f"{format_points(shares[0])} ({format_points(low)} to {format_points(high)})¹"
    return format_interval(t_interval(shares))


def build_result_table(runs: StudyRuns, task: str, level: int) -> str:
    """Build the table of a task: free-running and teacher-forced accuracy, and every seed's judged value.

    Args:
        runs: of the study.
        task: name of the task.
        level: difficulty.
    """
    metric, rows = runs.get_metric(task), []
    for arm in runs.study.arms:
        by_seed = {seed: runs.get_results(arm, seed, task).get(level) for seed in runs.get_seeds(arm)}
        results = [result for result in by_seed.values() if result is not None]
        if not results:
            rows.append([_format_label(runs, arm), "not run" if not by_seed else "no result", "", "", ""])
            continue
        forced = [value for result in results if (value := compute_share(result, "teacher_forced")) is not None]
        values = []
        for seed in runs.study.seeds:
            result = by_seed.get(seed)
            value = None if result is None else compute_share(result, metric)
            values.append("·" if value is None else format_points(value))
        rows.append(
            [
                _format_label(runs, arm),
                _format_cell(results, "characters"),
                _format_cell(results, "exact"),
                format_points(fmean(forced)) if forced else "-",
                " ".join(values),
            ]
        )
    seeds = " ".join(map(str, runs.study.seeds))
    return format_table(
        (
            "arm",
            "characters, % (95 %)",
            "answers, % (95 %)",
            "teacher-forced, %",
            f"seeds {seeds}: {_NAMES[metric]}",
        ),
        rows,
    )


def _compute_task_means(runs: StudyRuns, arm: str) -> tuple[dict[int, float], int]:
    """Return the mean over tasks of the judged metric by seed, and the number of runs that lack a task."""
    means, lacking = {}, 0
    for seed in runs.get_seeds(arm):
        by_task = []
        for task in runs.study.tasks:
            levels = runs.get_results(arm, seed, task).values()
            shares = [v for result in levels if (v := compute_share(result, runs.get_metric(task))) is not None]
            if shares:
                by_task.append(fmean(shares))
        if len(by_task) == len(runs.study.tasks):
            means[seed] = fmean(by_task)
        else:
            lacking += 1
    return means, lacking


def build_mean_table(runs: StudyRuns) -> str:
    """Build the table of means over tasks, each by its judged metric."""
    rows = []
    for arm in runs.study.arms:
        means, lacking = _compute_task_means(runs, arm)
        state = (
            format_interval(t_interval(list(means.values()))) if means else "not run" if not lacking else "no result"
        )
        values = " ".join(format_points(means[seed]) if seed in means else "·" for seed in runs.study.seeds)
        rows.append([_format_label(runs, arm), state, values if means else ""])
    seeds = " ".join(map(str, runs.study.seeds))
    return format_table(("arm", "mean over tasks, % (95 %)", f"seeds {seeds}"), rows)


def group_by_steps(runs: StudyRuns, task: str) -> tuple[dict[str, dict[int, dict[int, float]]], tuple[int, ...]]:
    """Compute the accuracy on a task by arm, number of steps and seed, at the levels that all evaluations share.

    Args:
        runs: of the study.
        task: name of the task.

    Returns:
        The accuracies, and these levels.
    """
    entries = [
        (arm, seed, result)
        for (arm, seed), record in runs.runs.items()
        for result in record.results
        if (result.task, result.split) == (task, runs.study.split)
    ]
    by_evaluation: dict[tuple[str, int, int], dict[int, float]] = {}
    for arm, seed, result in entries:
        value = compute_share(result, runs.get_metric(task))
        if value is not None:
            by_evaluation.setdefault((arm, seed, result.steps), {})[result.level] = value
    common = set.intersection(*map(set, by_evaluation.values())) if by_evaluation else set()
    by_arm: dict[str, dict[int, dict[int, float]]] = {arm: {} for arm in runs.study.arms}
    for (arm, seed, steps), levels in sorted(by_evaluation.items()):
        if common:
            by_arm[arm].setdefault(steps, {})[seed] = fmean(levels[level] for level in common)
    return {arm: by_steps for arm, by_steps in by_arm.items() if by_steps}, tuple(sorted(common))


def build_steps_table(runs: StudyRuns, task: str) -> str | None:
    """Build the table of accuracy against steps; None if no arm was evaluated at several numbers of steps."""
    by_arm, _ = group_by_steps(runs, task)
    if all(len(by_steps) < 2 for by_steps in by_arm.values()):
        return None
    columns = sorted({steps for by_steps in by_arm.values() for steps in by_steps})
    rows = []
    for arm, by_steps in by_arm.items():
        cells = [format_interval(t_interval(list(by_steps[k].values()))) if k in by_steps else "" for k in columns]
        rows.append([_format_label(runs, arm), *cells])
    word = "step" if runs.study.kind == "image" else "frame"
    return format_table(("arm", *(f"{k} {word}{'s'[: k > 1]}" for k in columns)), rows)


def build_progress_tables(runs: StudyRuns, arm: str, task: str) -> list[str]:
    """Build the tables of the gain of each step and of the accuracy of all subsets.

    Args:
        runs: of the study.
        arm: name of the arm.
        task: name of the task.

    Returns:
        Lines of Markdown; empty without a run that has all subsets.
    """
    by_seed, _ = compute_progress_by_seed(runs, arm, task)
    if not by_seed:
        return []
    rows = []
    for k in range(len(next(iter(by_seed.values())).prefixes)):
        progress = list(by_seed.values())
        columns = (
            [p.prefixes[k] for p in progress],
            [p.gains[k] for p in progress],
            [p.averaged[k] for p in progress],
            [p.gains[k] - p.averaged[k] for p in progress],
            [p.alone[k] for p in progress],
            [p.dropped[k] for p in progress],
        )
        cells = [
            _format_signed(values) if number in (1, 2, 3, 5) else _format_mean(values)
            for number, values in enumerate(columns)
        ]
        rows.append([str(k + 1), *cells])
    header = ("step", "steps 1 to k", "adds in order", "adds, all orders", "difference", "alone", "lost without it")
    lines = [
        f"{arm}, {task}, points (95 % over {len(by_seed)} seed{'s'[: len(by_seed) > 1]}):",
        "",
        format_table(header, rows),
    ]
    by_subset: dict[tuple[int, ...], list[float]] = {}
    for seed in by_seed:
        for subset in runs.runs[arm, seed].subsets:
            if subset.task == task:
                by_subset.setdefault(subset.kept, []).append(subset.characters_right / subset.characters)
    pairs = [
        (" ".join(str(step + 1) for step in steps) or "none", _format_mean(by_subset[steps]))
        for steps in sorted(by_subset, key=lambda steps: (len(steps), steps))
    ]
    fold = ["<details><summary>All subsets</summary>", "", format_table(("steps kept", "characters, %"), pairs), ""]
    return [*lines, "", *fold, "</details>", ""]


def _format_mean(values: Sequence[float]) -> str:
    """Format the mean with its interval."""
    return format_interval(t_interval(values))


def _format_signed(values: Sequence[float]) -> str:
    """Format the mean with its sign and half its interval."""
    estimate = t_interval(values)
    if estimate.lower is None or estimate.upper is None:
        return f"{estimate.mean * 100:+.1f}"
    return f"{estimate.mean * 100:+.1f} (±{(estimate.upper - estimate.mean) * 100:.1f})"


def build_other_splits_table(runs: StudyRuns) -> str | None:
    """Build the table of results on splits that no claim is judged on; None if there are none."""
    by_evaluation: dict[tuple[str, str, int, int], dict[str, list[float]]] = {}
    for (arm, _), record in runs.runs.items():
        for result in record.results:
            value = compute_share(result, runs.get_metric(result.task))
            if result.split != runs.study.split and value is not None:
                evaluation = (result.split, result.task, result.level, result.steps)
                by_evaluation.setdefault(evaluation, {}).setdefault(arm, []).append(value)
    if not by_evaluation:
        return None
    arms = [arm for arm in runs.study.arms if any(arm in by_arm for by_arm in by_evaluation.values())]
    rows = [
        [*map(str, evaluation), *(format_points(fmean(by_arm[arm])) if arm in by_arm else "" for arm in arms)]
        for evaluation, by_arm in sorted(by_evaluation.items())
    ]
    steps = "steps" if runs.study.kind == "image" else "frames"
    return format_table(("split", "task", "level", steps, *(_format_label(runs, arm) for arm in arms)), rows)


__all__ = [
    "NO_EVIDENCE",
    "build_arms_table",
    "build_mean_table",
    "build_other_splits_table",
    "build_progress_tables",
    "build_result_table",
    "build_steps_table",
    "group_by_steps",
    "is_without_evidence",
]
