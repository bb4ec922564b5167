"""Markdown tables of one study: its arms, what they reach, accuracy against steps, and what each step adds.

Arms and seeds of the plan without a finished run stand in the tables as "not run". Leaves out claims (`summary`) and
plots (`plots`). Used by `report`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import fmean

from pvc.lab.ablation.claims import Metric, StudyRuns, counts, progress_by_seed, share
from pvc.lab.ablation.records import Result, RunRecord
from pvc.lab.ablation.stats import Estimate, t_interval
from pvc.lab.ablation.summary import points, table
from pvc.lab.evaluate.intervals import wilson

NO_EVIDENCE = (
    "F is listed for completeness: without AdaLN every step of a still picture is computed alike, so its steps are "
    "identical by construction. It is no evidence about temporal attention."
)
_NAMES: dict[Metric, str] = {"characters": "characters", "exact": "answers", "teacher_forced": "teacher-forced"}


def is_no_evidence(runs: StudyRuns, arm: str) -> bool:
    """Arm F on still pictures."""
    return runs.study.kind == "image" and arm == "F"


def _label(runs: StudyRuns, arm: str) -> str:
    return f"{arm} †" if is_no_evidence(runs, arm) else arm


def interval(estimate: Estimate) -> str:
    """An accuracy in per cent with its interval, cut at 0 and 100."""
    if estimate.lower is None or estimate.upper is None:
        return points(estimate.mean)
    return f"{points(estimate.mean)} ({points(max(0.0, estimate.lower))} to {points(min(1.0, estimate.upper))})"


def _span(values: Sequence[float], show: Callable[[float], str]) -> str:
    """One figure where all runs agree, the lowest and highest where they do not."""
    shown = list(dict.fromkeys(map(show, sorted(values))))
    return shown[0] if len(shown) == 1 else f"{shown[0]} to {shown[-1]}"


def _millions(count: float) -> str:
    return f"{count / 1e6:.3f}"


def arms_table(runs: StudyRuns) -> str:
    """What each arm is and what it cost."""
    rows = []
    for arm, what in runs.study.arms.items():
        records = runs.of(arm)
        label = f"{_label(runs, arm)} | {what}".split(" | ", 1)
        if not records:
            rows.append([*label, str(runs.study.default_steps[arm]), *["not run"] * 5, f"0 of {len(runs.study.seeds)}"])
            continue

        def of(get: Callable[[RunRecord], float], show: Callable[[float], str], records: list[RunRecord]) -> str:
            return _span([get(record) for record in records], show)

        parts = (lambda r: r.parameters.total, lambda r: r.parameters.temporal, lambda r: r.parameters.projector)
        rows.append(
            [
                *label,
                str(runs.study.default_steps[arm]),
                of(lambda r: r.tokens, lambda n: f"{n:.0f}", records),
                " / ".join(of(part, _millions, records) for part in parts),
                of(lambda r: r.train.samples, lambda n: f"{n / 1000:,.1f}", records),
                f"{fmean(record.train.cpu_seconds for record in records) / 60:.1f}",
                ", ".join(sorted({record.train.start or "nothing" for record in records})),
                f"{len(records)} of {len(runs.study.seeds)}",
            ]
        )
    steps = "steps" if runs.study.kind == "image" else "frames"
    header = ("arm", "what it is", steps, "tokens", "parameters, M: all / temporal / projector", "samples, k")
    return table((*header, "CPU min", "from", "runs"), rows)


def _cell(results: list[Result], metric: Metric) -> str:
    """Mean over seeds with its interval; of a single seed Wilson's interval over its test items (marked ¹)."""
    shares = [value for result in results if (value := share(result, metric)) is not None]
    if not shares:
        return "-"
    if len(shares) == 1:
        right, whole = next(pair for result in results if (pair := counts(result, metric))[1])
        low, high = wilson(right, whole)
        return f"{points(shares[0])} ({points(low)} to {points(high)})¹"
    return interval(t_interval(shares))


def result_table(runs: StudyRuns, task: str, level: int) -> str:
    """Free-running characters and answers, teacher-forced beside them, and every seed's value of what is judged."""
    metric, rows = runs.metric(task), []
    for arm in runs.study.arms:
        by_seed = {seed: runs.results(arm, seed, task).get(level) for seed in runs.seeds(arm)}
        results = [result for result in by_seed.values() if result is not None]
        if not results:
            rows.append([_label(runs, arm), "not run" if not by_seed else "no result", "", "", ""])
            continue
        forced = [value for result in results if (value := share(result, "teacher_forced")) is not None]
        each = []
        for seed in runs.study.seeds:
            result = by_seed.get(seed)
            value = None if result is None else share(result, metric)
            each.append("·" if value is None else points(value))
        rows.append(
            [
                _label(runs, arm),
                _cell(results, "characters"),
                _cell(results, "exact"),
                points(fmean(forced)) if forced else "-",
                " ".join(each),
            ]
        )
    seeds = " ".join(map(str, runs.study.seeds))
    return table(
        (
            "arm",
            "characters, % (95 %)",
            "answers, % (95 %)",
            "teacher-forced, %",
            f"seeds {seeds}: {_NAMES[metric]}",
        ),
        rows,
    )


def _mean_over_tasks(runs: StudyRuns, arm: str) -> tuple[dict[int, float], int]:
    """By seed, the mean over tasks of the judged metric; and how many runs lack a task."""
    found, lacking = {}, 0
    for seed in runs.seeds(arm):
        by_task = []
        for task in runs.study.tasks:
            levels = runs.results(arm, seed, task).values()
            shares = [v for result in levels if (v := share(result, runs.metric(task))) is not None]
            if shares:
                by_task.append(fmean(shares))
        if len(by_task) == len(runs.study.tasks):
            found[seed] = fmean(by_task)
        else:
            lacking += 1
    return found, lacking


def mean_table(runs: StudyRuns) -> str:
    """Mean over tasks, each by what it is judged by."""
    rows = []
    for arm in runs.study.arms:
        found, lacking = _mean_over_tasks(runs, arm)
        state = interval(t_interval(list(found.values()))) if found else "not run" if not lacking else "no result"
        each = " ".join(points(found[seed]) if seed in found else "·" for seed in runs.study.seeds)
        rows.append([_label(runs, arm), state, each if found else ""])
    seeds = " ".join(map(str, runs.study.seeds))
    return table(("arm", "mean over tasks, % (95 %)", f"seeds {seeds}"), rows)


def steps_by_arm(runs: StudyRuns, task: str) -> tuple[dict[str, dict[int, dict[int, float]]], tuple[int, ...]]:
    """Accuracy by arm, number of steps and seed, at the levels that every evaluation shares; and these levels."""
    entries = [
        (arm, seed, result)
        for (arm, seed), record in runs.runs.items()
        for result in record.results
        if (result.task, result.split) == (task, runs.study.split)
    ]
    by_place: dict[tuple[str, int, int], dict[int, float]] = {}
    for arm, seed, result in entries:
        value = share(result, runs.metric(task))
        if value is not None:
            by_place.setdefault((arm, seed, result.steps), {})[result.level] = value
    common = set.intersection(*map(set, by_place.values())) if by_place else set()
    found: dict[str, dict[int, dict[int, float]]] = {arm: {} for arm in runs.study.arms}
    for (arm, seed, steps), levels in sorted(by_place.items()):
        if common:
            found[arm].setdefault(steps, {})[seed] = fmean(levels[level] for level in common)
    return {arm: by_steps for arm, by_steps in found.items() if by_steps}, tuple(sorted(common))


def steps_table(runs: StudyRuns, task: str) -> str | None:
    """Accuracy against steps; None where no arm was evaluated at more than one number of them."""
    found, _ = steps_by_arm(runs, task)
    if all(len(by_steps) < 2 for by_steps in found.values()):
        return None
    columns = sorted({steps for by_steps in found.values() for steps in by_steps})
    rows = []
    for arm, by_steps in found.items():
        cells = [interval(t_interval(list(by_steps[k].values()))) if k in by_steps else "" for k in columns]
        rows.append([_label(runs, arm), *cells])
    word = "step" if runs.study.kind == "image" else "frame"
    return table(("arm", *(f"{k} {word}{'s'[: k > 1]}" for k in columns)), rows)


def progress_tables(runs: StudyRuns, arm: str, task: str) -> list[str]:
    """What each step adds, and the accuracy of all subsets behind a fold; empty without complete subsets."""
    found, _ = progress_by_seed(runs, arm, task)
    if not found:
        return []
    rows = []
    for k in range(len(next(iter(found.values())).prefixes)):
        each = list(found.values())
        columns = (
            [p.prefixes[k] for p in each],
            [p.gains[k] for p in each],
            [p.averaged[k] for p in each],
            [p.gains[k] - p.averaged[k] for p in each],
            [p.alone[k] for p in each],
            [p.dropped[k] for p in each],
        )
        cells = [_signed(values) if number in (1, 2, 3, 5) else _plain(values) for number, values in enumerate(columns)]
        rows.append([str(k + 1), *cells])
    header = ("step", "steps 1 to k", "adds in order", "adds, all orders", "difference", "alone", "lost without it")
    lines = [f"{arm}, {task}, points (95 % over {len(found)} seed{'s'[: len(found) > 1]}):", "", table(header, rows)]
    kept: dict[tuple[int, ...], list[float]] = {}
    for seed in found:
        for subset in runs.runs[arm, seed].subsets:
            if subset.task == task:
                kept.setdefault(subset.kept, []).append(subset.characters_right / subset.characters)
    pairs = [
        (" ".join(str(step + 1) for step in steps) or "none", _plain(kept[steps]))
        for steps in sorted(kept, key=lambda steps: (len(steps), steps))
    ]
    fold = ["<details><summary>All subsets</summary>", "", table(("steps kept", "characters, %"), pairs), ""]
    return [*lines, "", *fold, "</details>", ""]


def _plain(values: Sequence[float]) -> str:
    return interval(t_interval(values))


def _signed(values: Sequence[float]) -> str:
    estimate = t_interval(values)
    if estimate.lower is None or estimate.upper is None:
        return f"{estimate.mean * 100:+.1f}"
    return f"{estimate.mean * 100:+.1f} (±{(estimate.upper - estimate.mean) * 100:.1f})"


def other_splits_table(runs: StudyRuns) -> str | None:
    """Results on splits that no claim is judged on; None where there are none."""
    found: dict[tuple[str, str, int, int], dict[str, list[float]]] = {}
    for (arm, _), record in runs.runs.items():
        for result in record.results:
            value = share(result, runs.metric(result.task))
            if result.split != runs.study.split and value is not None:
                place = (result.split, result.task, result.level, result.steps)
                found.setdefault(place, {}).setdefault(arm, []).append(value)
    if not found:
        return None
    arms = [arm for arm in runs.study.arms if any(arm in by_arm for by_arm in found.values())]
    rows = [
        [*map(str, place), *(points(fmean(by_arm[arm])) if arm in by_arm else "" for arm in arms)]
        for place, by_arm in sorted(found.items())
    ]
    steps = "steps" if runs.study.kind == "image" else "frames"
    return table(("split", "task", "level", steps, *(_label(runs, arm) for arm in arms)), rows)


__all__ = [
    "NO_EVIDENCE",
    "arms_table",
    "is_no_evidence",
    "mean_table",
    "other_splits_table",
    "progress_tables",
    "result_table",
    "steps_by_arm",
    "steps_table",
]
