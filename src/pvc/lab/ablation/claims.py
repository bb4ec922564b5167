"""The claims that the ablation judges, as a table (CLAIMS), and how one is judged from finished runs.

To judge something else, add a Claim or a Contrast below; nothing else changes. The report states the rules of `stats`.
Leaves out Markdown (`tables`, `report`) and plots. Used by `report`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from pvc.errors import ConfigError, UsageError
from pvc.lab.ablation.records import Result, RunRecord, Study
from pvc.lab.ablation.stats import (
    CEILING,
    Outcome,
    Progress,
    Verdict,
    at_ceiling,
    at_floor,
    better,
    combined,
    inferior,
    non_inferior,
    paired,
    progressive,
    t_interval,
)

Rule = Literal["non_inferior", "inferior", "better", "progressive"]
Metric = Literal["characters", "exact", "teacher_forced"]


@dataclass(frozen=True)
class Contrast:
    """One comparison: arm `left` minus arm `right` of a study under a rule; `progressive` has no right arm.

    Judged on the mean over the study's tasks, with `per_task` on each task too. Only `decisive` ones make the claim's
    verdict. left_steps, right_steps: other than the arm's default.
    """

    study: str
    left: str
    right: str | None
    rule: Rule
    question: str
    per_task: bool = False
    decisive: bool = True
    left_steps: int | None = None
    right_steps: int | None = None


@dataclass(frozen=True)
class Claim:
    """A claim of the paper and the contrasts that bear on it. `caveat` is printed whatever the verdict."""

    letter: str
    text: str
    contrasts: tuple[Contrast, ...]
    caveat: str = ""


# So far below the ceiling an arm has to be to show that the task separates arms.
CLEARLY = 0.05

CLAIMS = (
    Claim(
        "a",
        "On stills, four steps at ratio 1/4 lose nothing against ratio 1/2.",
        (
            Contrast("stills", "D", "A", "non_inferior", "PVC against ratio 1/2, continued from its own checkpoint"),
            Contrast("stills_short", "D", "A", "non_inferior", "with a quarter of the training", decisive=False),
            Contrast("stills_16", "D", "A", "non_inferior", "at twice the density", decisive=False),
        ),
        "On a picture PVC has as many tokens as ratio 1/2 and costs more to encode: what it saves, it saves on video. "
        "Where A misses characters its language model may be the limit, not its tokens: a D above A does not show that "
        "PVC keeps more.",
    ),
    Claim(
        "b",
        "On stills, plain ratio 1/4 does lose.",
        (
            Contrast("stills", "B", "A", "inferior", "plain 1/4 against ratio 1/2"),
            Contrast("stills_short", "B", "A", "inferior", "with a quarter of the training", decisive=False),
            Contrast("stills_16", "B", "A", "inferior", "at twice the density", decisive=False),
        ),
    ),
    Claim(
        "c",
        "Video is better at equal tokens per frame.",
        (
            Contrast("video", "D", "B", "better", "PVC against plain 1/4, same frames", per_task=True),
            Contrast("video", "D", "H", "better", "PVC against ratio 1/2 on a quarter of the frames", decisive=False),
        ),
        "B has as many tokens a frame as D, H as many in total. Arms differ in parameters and in what they cost to "
        "train: the table of arms says how much.",
    ),
    Claim(
        "d",
        "Temporal attention and AdaLN each contribute.",
        (
            Contrast("stills_16", "D", "E", "better", "temporal attention, added to AdaLN, at twice the density"),
            Contrast("video", "D", "E", "better", "temporal attention, added to AdaLN"),
            Contrast("video", "D", "F", "better", "AdaLN, added to temporal attention"),
            Contrast("stills_16", "D", "G", "better", "both together, against four learned heads", decisive=False),
            Contrast("stills", "D", "E", "better", "temporal attention, added to AdaLN", decisive=False),
            Contrast("stills_short", "D", "E", "better", "with a quarter of the training", decisive=False),
        ),
        "F on stills is no evidence and is not used: its steps are identical by construction.",
    ),
    Claim(
        "e",
        "The encoding is progressive: each step adds to the ones before it.",
        (
            Contrast("stills", "D", None, "progressive", "what steps add, one after another"),
            Contrast("stills_short", "D", None, "progressive", "with a quarter of the training", decisive=False),
            Contrast("stills_16", "D", None, "progressive", "at twice the density", decisive=False),
        ),
        "A partition passes this rule too: whether steps refine what came before or each take another part is for the "
        "comparison of orders to say.",
    ),
)


class StudyRuns:
    """The finished runs of one study, by arm and seed. `unplanned` are runs of arms or seeds that the plan lacks.

    Raises ConfigError where two runs have the same arm and seed.
    """

    def __init__(self, study: Study, records: Iterable[RunRecord]) -> None:
        self.study = study
        self.runs: dict[tuple[str, int], RunRecord] = {}
        self.unplanned: list[RunRecord] = []
        seen = set()
        for record in records:
            if record.study != study.study:
                continue
            if record.file_name in seen:
                raise ConfigError(f"two runs of study {record.study!r}, arm {record.arm!r}, seed {record.seed}")
            seen.add(record.file_name)
            if record.arm in study.arms and record.seed in study.seeds:
                self.runs[record.arm, record.seed] = record
            else:
                self.unplanned.append(record)

    def seeds(self, arm: str) -> tuple[int, ...]:
        """Seeds of an arm with a finished run, in the plan's order."""
        return tuple(seed for seed in self.study.seeds if (arm, seed) in self.runs)

    def of(self, arm: str) -> list[RunRecord]:
        return [self.runs[arm, seed] for seed in self.seeds(arm)]

    def metric(self, task: str) -> Metric:
        """What a task is judged by: characters where the answer is a text, else exact answers."""
        return "characters" if task in self.study.text_tasks else "exact"

    def results(self, arm: str, seed: int, task: str, steps: int | None = None) -> dict[int, Result]:
        """Results on the study's split by level; `steps` is the arm's default when None."""
        steps = self.study.default_steps[arm] if steps is None else steps
        record = self.runs[arm, seed]
        found = [r for r in record.results if (r.task, r.split, r.steps) == (task, self.study.split, steps)]
        return {result.level: result for result in found}

    def levels(self, task: str) -> tuple[int, ...]:
        """Levels at which any run was evaluated on a task."""
        found = {
            result.level
            for record in self.runs.values()
            for result in record.results
            if (result.task, result.split) == (task, self.study.split)
        }
        return tuple(sorted(found))


def counts(result: Result, metric: Metric) -> tuple[int, int]:
    """(right, all) of a result; free-running for `characters` and `exact`."""
    if metric == "characters":
        return result.characters_right, result.characters
    if metric == "exact":
        return result.right, result.count
    return result.teacher_forced_right, result.teacher_forced_tokens


def share(result: Result, metric: Metric) -> float | None:
    """Accuracy of a result, or None where nothing was counted."""
    right, whole = counts(result, metric)
    return right / whole if whole else None


@dataclass(frozen=True)
class Finding:
    """A judged contrast. task: None for the mean over tasks. left, right: mean accuracies over the paired seeds.

    Of `progressive`, left is the accuracy of all steps and right that of the first alone.
    """

    contrast: Contrast
    task: str | None
    verdict: Verdict
    seeds: tuple[int, ...] = ()
    left: float | None = None
    right: float | None = None
    notes: tuple[str, ...] = ()
    steps: tuple[Verdict, ...] = ()  # progressive only: a verdict for each step after the first

    @property
    def decisive(self) -> bool:
        """Whether the claim's verdict counts it: the mean over tasks, or every task of `progressive`."""
        return self.contrast.decisive and (self.task is None or self.contrast.rule == "progressive")


@dataclass(frozen=True)
class Judged:
    """A claim with its findings; `outcome` combines the decisive ones."""

    claim: Claim
    findings: tuple[Finding, ...]

    @property
    def outcome(self) -> Outcome:
        return combined([f.verdict.outcome for f in self.findings if f.decisive])


_Cells = dict[int, dict[str, dict[int, float]]]  # accuracy by seed, task and level


def _cells(runs: StudyRuns, arm: str, steps: int | None, tasks: Sequence[str], notes: list[str]) -> _Cells:
    """Accuracies of an arm. A seed without all tasks cannot be averaged like the others: left out, with a note."""
    table: _Cells = {}
    for seed in runs.seeds(arm):
        row: dict[str, dict[int, float]] = {}
        for task in tasks:
            shares = {k: share(r, runs.metric(task)) for k, r in runs.results(arm, seed, task, steps).items()}
            row[task] = {level: value for level, value in shares.items() if value is not None}
        absent = [task for task in tasks if not row[task]]
        if absent:
            notes.append(f"{arm} seed {seed} has no result for {_list(absent)}, not used")
        else:
            table[seed] = row
    return table


def _common_levels(rows: Sequence[Mapping[str, Mapping[int, float]]], task: str, notes: list[str]) -> set[int]:
    """Levels at which all of these runs were evaluated: an easier level must not decide a comparison."""
    sets = [set(row[task]) for row in rows]
    if not sets:
        return set()
    common, union = set.intersection(*sets), set.union(*sets)
    if common != union:
        levels = _list(sorted(common)) or "none"
        notes.append(f"{task}: runs were evaluated at different levels; compared at those of all ({levels})")
    return common


def _scores(
    runs: StudyRuns, contrast: Contrast, tasks: Sequence[str], notes: list[str]
) -> tuple[dict[int, float], dict[int, float]]:
    """Accuracy by seed of both arms: the mean over tasks of the mean over the levels that all were evaluated at."""
    left = _cells(runs, contrast.left, contrast.left_steps, tasks, notes)
    right = _cells(runs, contrast.right or contrast.left, contrast.right_steps, tasks, notes)
    rows = [*left.values(), *right.values()]
    common = {task: _common_levels(rows, task, notes) for task in tasks}
    if not all(common.values()):
        return {}, {}

    def mean(row: Mapping[str, Mapping[int, float]]) -> float:
        each = [sum(row[task][level] for level in common[task]) / len(common[task]) for task in tasks]
        return sum(each) / len(each)

    return {seed: mean(row) for seed, row in left.items()}, {seed: mean(row) for seed, row in right.items()}


_VERDICTS: dict[str, Callable[[Sequence[float]], Verdict]] = {
    "non_inferior": non_inferior,
    "inferior": inferior,
    "better": better,
}


def _compare(runs: StudyRuns, contrast: Contrast, task: str | None) -> Finding:
    """Judge left - right, over the seeds that both arms have."""
    study, tasks = runs.study, runs.study.tasks if task is None else (task,)
    notes: list[str] = [f"{arm} is not run" for arm in (contrast.left, contrast.right or "") if not runs.seeds(arm)]
    left, right = _scores(runs, contrast, tasks, notes)
    pairs = paired(left, right)
    for arm, alone in ((contrast.left, pairs.only_left), (contrast.right, pairs.only_right)):
        if alone:
            notes.append(f"{arm} has seed{'s'[: len(alone) > 1]} {_list(alone)} alone, not used")
    verdict = _VERDICTS[contrast.rule](pairs.differences)
    if not pairs.seeds:
        return Finding(contrast, task, verdict, notes=tuple(notes))
    left_mean, right_mean = (sum(of[seed] for seed in pairs.seeds) / len(pairs.seeds) for of in (left, right))
    reasons = [verdict.reason] if verdict.reason else []
    if (
        at_ceiling(left_mean, right_mean)
        and contrast.rule == "non_inferior"
        and (other := _below(runs, contrast, tasks))
    ):
        notes.append(f"both are near the ceiling, but {other} is not: this density does tell arms apart")
    elif at_ceiling(left_mean, right_mean):
        where = "this density" if study.kind == "image" else "this task"
        reasons.append(f"at the ceiling: {where} cannot tell them apart")
    elif at_floor(left_mean, right_mean, sum(study.chance.get(name, 0.0) for name in tasks) / len(tasks)):
        reasons.append("at the floor: neither has learned the task")
    if reasons:
        verdict = Verdict("undecided", verdict.estimate, "; ".join(reasons))
    mixed = [
        seed
        for seed in pairs.seeds
        if runs.runs[contrast.left, seed].commit != runs.runs[contrast.right or "", seed].commit
    ]
    if mixed:
        notes.append(f"seed{'s'[: len(mixed) > 1]} {_list(mixed)}: the two runs are of different commits")
    return Finding(contrast, task, verdict, pairs.seeds, left_mean, right_mean, tuple(notes))


def _below(runs: StudyRuns, contrast: Contrast, tasks: Sequence[str]) -> str | None:
    """An arm that is clearly below the ceiling on the same tasks: where one is, being near it means something."""
    for arm in runs.study.arms:
        if arm in (contrast.left, contrast.right):
            continue
        scores, _ = _scores(runs, replace(contrast, left=arm, left_steps=None), tasks, [])
        if scores and sum(scores.values()) / len(scores) < CEILING - CLEARLY:
            return arm
    return None


def _list(values: Iterable[object]) -> str:
    return ", ".join(map(str, values))


def progress_by_seed(runs: StudyRuns, arm: str, task: str) -> tuple[dict[int, Progress], list[str]]:
    """What steps add, for each seed whose run holds all subsets; and a note for each other that holds some."""
    found, notes = {}, []
    for seed in runs.seeds(arm):
        subsets = [subset for subset in runs.runs[arm, seed].subsets if subset.task == task]
        if not subsets:
            continue
        accuracy = {subset.kept: subset.characters_right / subset.characters for subset in subsets}
        try:
            found[seed] = progressive(accuracy, runs.study.chance.get(task, 0.0))
        except UsageError as error:
            notes.append(f"{arm} seed {seed}, {task}: {error}")
    lengths = sorted({len(progress.prefixes) for progress in found.values()})
    if len(lengths) > 1:
        notes.append(f"{arm}, {task}: seeds with {_list(lengths)} steps; only those with {lengths[-1]} are used")
    return {seed: p for seed, p in found.items() if len(p.prefixes) == lengths[-1]}, notes


def _judge_progress(runs: StudyRuns, contrast: Contrast, task: str) -> Finding:
    found, notes = progress_by_seed(runs, contrast.left, task)
    if not found:
        return Finding(contrast, task, Verdict("undecided", None, "0 seeds"), notes=tuple(notes))
    by_step = list(zip(*(progress.gains for progress in found.values()), strict=True))
    steps = tuple(better(gains) for gains in by_step[1:])
    outcome = combined([step.outcome for step in steps])
    reasons = {step.reason for step in steps if step.reason}
    rest = t_interval([sum(progress.gains[1:]) for progress in found.values()])
    verdict = Verdict(outcome, rest, min(reasons, default=""))
    whole = sum(progress.prefixes[-1] for progress in found.values()) / len(found)
    first = sum(progress.prefixes[0] for progress in found.values()) / len(found)
    return Finding(contrast, task, verdict, tuple(found), whole, first, tuple(notes), steps)


def judge(claim: Claim, studies: Mapping[str, StudyRuns]) -> Judged:
    """All findings of a claim; of contrasts that the plan lacks, decisive ones are undecided and say so."""
    findings: list[Finding] = []
    for contrast in claim.contrasts:
        runs = studies.get(contrast.study)
        arms = [arm for arm in (contrast.left, contrast.right) if arm is not None]
        if runs is None or any(arm not in runs.study.arms for arm in arms):
            if contrast.decisive:
                findings.append(Finding(contrast, None, Verdict("undecided", None, "not in this plan")))
        elif contrast.rule == "progressive":
            findings += [_judge_progress(runs, contrast, task) for task in runs.study.tasks]
        else:
            findings.append(_compare(runs, contrast, None))
            if contrast.per_task and len(runs.study.tasks) > 1:
                findings += [_compare(runs, contrast, task) for task in runs.study.tasks]
    return Judged(claim, tuple(findings))


__all__ = [
    "CLAIMS",
    "Claim",
    "Contrast",
    "Finding",
    "Judged",
    "Metric",
    "StudyRuns",
    "counts",
    "judge",
    "progress_by_seed",
    "share",
]
