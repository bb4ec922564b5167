"""Claims that the ablation judges, as a table (CLAIMS), and their judgement from finished runs.

To judge something else, add a Claim or a Contrast below. The rules are in `stats`, Markdown in `summary`, `tables` and
`report`. Called by `report`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from pvc.errors import UsageError
from pvc.lab.ablation.stats import (
    CEILING,
    Outcome,
    Progress,
    Verdict,
    combine_outcomes,
    compute_progress,
    is_at_ceiling,
    is_at_floor,
    judge_better,
    judge_inferior,
    judge_non_inferior,
    pair_by_seed,
    t_interval,
)
from pvc.lab.ablation.study_runs import StudyRuns, compute_share

Rule = Literal["non_inferior", "inferior", "better", "progressive"]


@dataclass(frozen=True)
class Contrast:
    """One comparison: arm `left` minus arm `right` of a study under a rule.

    Attributes:
        study: name of the study.
        left: name of the left arm.
        right: name of the right arm; None for the rule "progressive".
        rule: rule of `stats.RULES`.
        question: short description for the report.
        per_task: judge each task, too, and not only the mean over tasks.
        decisive: whether the claim's verdict depends on it.
        left_steps: steps of the left arm; None for its default.
        right_steps: steps of the right arm; None for its default.
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
    """A claim of the paper and the contrasts that judge it.

    Attributes:
        letter: short name.
        text: the claim.
        contrasts: comparisons.
        caveat: paragraph that is printed with every verdict.
    """

    letter: str
    text: str
    contrasts: tuple[Contrast, ...]
    caveat: str = ""


# Minimum distance of an arm from the ceiling that shows that the task separates arms.
CEILING_DISTANCE = 0.05

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


@dataclass(frozen=True)
class Finding:
    """A judged contrast.

    Attributes:
        contrast: the comparison.
        task: task that was judged; None for the mean over tasks.
        verdict: of the rule.
        seeds: seeds that both arms have.
        left: mean accuracy of the left arm over the seeds; for "progressive", of all steps.
        right: mean accuracy of the right arm over the seeds; for "progressive", of the first step alone.
        notes: remarks about the data, such as missing runs.
        steps: for "progressive", a verdict for each step after the first.
    """

    contrast: Contrast
    task: str | None
    verdict: Verdict
    seeds: tuple[int, ...] = ()
    left: float | None = None
    right: float | None = None
    notes: tuple[str, ...] = ()
    steps: tuple[Verdict, ...] = ()

    @property
    def decisive(self) -> bool:
        """Whether the claim's verdict depends on it: the mean over tasks, or every task of "progressive"."""
        return self.contrast.decisive and (self.task is None or self.contrast.rule == "progressive")


@dataclass(frozen=True)
class Judgement:
    """A judged claim.

    Attributes:
        claim: the claim.
        findings: its judged contrasts.
    """

    claim: Claim
    findings: tuple[Finding, ...]

    @property
    def outcome(self) -> Outcome:
        """Combined outcome of the decisive findings."""
        return combine_outcomes([f.verdict.outcome for f in self.findings if f.decisive])


_Cells = dict[int, dict[str, dict[int, float]]]  # accuracy by seed, task and level


def _collect_accuracies(runs: StudyRuns, arm: str, steps: int | None, tasks: Sequence[str], notes: list[str]) -> _Cells:
    """Collect the accuracies of an arm; note and skip seeds that lack a task, since their mean is not comparable."""
    table: _Cells = {}
    for seed in runs.get_seeds(arm):
        row: dict[str, dict[int, float]] = {}
        for task in tasks:
            shares = {
                k: compute_share(r, runs.get_metric(task)) for k, r in runs.get_results(arm, seed, task, steps).items()
            }
            row[task] = {level: value for level, value in shares.items() if value is not None}
        absent = [task for task in tasks if not row[task]]
        if absent:
            notes.append(f"{arm} seed {seed} has no result for {_join(absent)}, not used")
        else:
            table[seed] = row
    return table


def _common_levels(rows: Sequence[Mapping[str, Mapping[int, float]]], task: str, notes: list[str]) -> set[int]:
    """Return the levels at which all runs were evaluated, since an easier level must not decide a comparison."""
    sets = [set(row[task]) for row in rows]
    if not sets:
        return set()
    common, union = set.intersection(*sets), set.union(*sets)
    if common != union:
        levels = _join(sorted(common)) or "none"
        notes.append(f"{task}: runs were evaluated at different levels; compared at those of all ({levels})")
    return common


def _compute_scores(
    runs: StudyRuns, contrast: Contrast, tasks: Sequence[str], notes: list[str]
) -> tuple[dict[int, float], dict[int, float]]:
    """Compute the accuracy of both arms by seed: the mean over tasks of the mean over the common levels."""
    left = _collect_accuracies(runs, contrast.left, contrast.left_steps, tasks, notes)
    right = _collect_accuracies(runs, contrast.right or contrast.left, contrast.right_steps, tasks, notes)
    rows = [*left.values(), *right.values()]
    common = {task: _common_levels(rows, task, notes) for task in tasks}
    if not all(common.values()):
        return {}, {}

    def mean(row: Mapping[str, Mapping[int, float]]) -> float:
        by_task = [sum(row[task][level] for level in common[task]) / len(common[task]) for task in tasks]
        return sum(by_task) / len(by_task)

    return {seed: mean(row) for seed, row in left.items()}, {seed: mean(row) for seed, row in right.items()}


_VERDICTS: dict[str, Callable[[Sequence[float]], Verdict]] = {
    "non_inferior": judge_non_inferior,
    "inferior": judge_inferior,
    "better": judge_better,
}


def _judge_contrast(runs: StudyRuns, contrast: Contrast, task: str | None) -> Finding:
    """Judge left - right, over the seeds that both arms have."""
    study, tasks = runs.study, runs.study.tasks if task is None else (task,)
    notes: list[str] = [f"{arm} is not run" for arm in (contrast.left, contrast.right or "") if not runs.get_seeds(arm)]
    left, right = _compute_scores(runs, contrast, tasks, notes)
    pairs = pair_by_seed(left, right)
    for arm, unpaired in ((contrast.left, pairs.only_left), (contrast.right, pairs.only_right)):
        if unpaired:
            notes.append(f"{arm} has seed{'s'[: len(unpaired) > 1]} {_join(unpaired)} alone, not used")
    verdict = _VERDICTS[contrast.rule](pairs.differences)
    if not pairs.seeds:
        return Finding(contrast, task, verdict, notes=tuple(notes))
    left_mean, right_mean = (sum(arm[seed] for seed in pairs.seeds) / len(pairs.seeds) for arm in (left, right))
    reasons = [verdict.reason] if verdict.reason else []
    if (
        is_at_ceiling(left_mean, right_mean)
        and contrast.rule == "non_inferior"
        and (other := _find_arm_below_ceiling(runs, contrast, tasks))
    ):
        notes.append(f"both are near the ceiling, but {other} is not: this density does tell arms apart")
    elif is_at_ceiling(left_mean, right_mean):
        where = "this density" if study.kind == "image" else "this task"
        reasons.append(f"at the ceiling: {where} cannot tell them apart")
    elif is_at_floor(left_mean, right_mean, sum(study.chance.get(name, 0.0) for name in tasks) / len(tasks)):
        reasons.append("at the floor: neither has learned the task")
    if reasons:
        verdict = Verdict("undecided", verdict.estimate, "; ".join(reasons))
    mixed = [
        seed
        for seed in pairs.seeds
        if runs.runs[contrast.left, seed].commit != runs.runs[contrast.right or "", seed].commit
    ]
    if mixed:
        notes.append(f"seed{'s'[: len(mixed) > 1]} {_join(mixed)}: the two runs are of different commits")
    return Finding(contrast, task, verdict, pairs.seeds, left_mean, right_mean, tuple(notes))


def _find_arm_below_ceiling(runs: StudyRuns, contrast: Contrast, tasks: Sequence[str]) -> str | None:
    """Return another arm that is clearly below the ceiling on the same tasks, which shows that they separate arms."""
    for arm in runs.study.arms:
        if arm in (contrast.left, contrast.right):
            continue
        scores, _ = _compute_scores(runs, replace(contrast, left=arm, left_steps=None), tasks, [])
        if scores and sum(scores.values()) / len(scores) < CEILING - CEILING_DISTANCE:
            return arm
    return None


def _join(values: Iterable[object]) -> str:
    return ", ".join(map(str, values))


def compute_progress_by_seed(runs: StudyRuns, arm: str, task: str) -> tuple[dict[int, Progress], list[str]]:
    """Compute the contribution of each step, by seed.

    Args:
        runs: of the study.
        arm: name of the arm.
        task: name of the task.

    Returns:
        Contributions by seed, for runs with all subsets; and notes about runs that have only some of them.
    """
    by_seed, notes = {}, []
    for seed in runs.get_seeds(arm):
        subsets = [subset for subset in runs.runs[arm, seed].subsets if subset.task == task]
        if not subsets:
            continue
        accuracy = {subset.kept: subset.characters_right / subset.characters for subset in subsets}
        try:
            by_seed[seed] = compute_progress(accuracy, runs.study.chance.get(task, 0.0))
        except UsageError as error:
            notes.append(f"{arm} seed {seed}, {task}: {error}")
    lengths = sorted({len(progress.prefixes) for progress in by_seed.values()})
    if len(lengths) > 1:
        notes.append(f"{arm}, {task}: seeds with {_join(lengths)} steps; only those with {lengths[-1]} are used")
    return {seed: p for seed, p in by_seed.items() if len(p.prefixes) == lengths[-1]}, notes


def _judge_progress(runs: StudyRuns, contrast: Contrast, task: str) -> Finding:
    """Judge whether every step after the first adds to the steps before it."""
    by_seed, notes = compute_progress_by_seed(runs, contrast.left, task)
    if not by_seed:
        return Finding(contrast, task, Verdict("undecided", None, "0 seeds"), notes=tuple(notes))
    by_step = list(zip(*(progress.gains for progress in by_seed.values()), strict=True))
    steps = tuple(judge_better(gains) for gains in by_step[1:])
    outcome = combine_outcomes([step.outcome for step in steps])
    reasons = {step.reason for step in steps if step.reason}
    later = t_interval([sum(progress.gains[1:]) for progress in by_seed.values()])
    verdict = Verdict(outcome, later, min(reasons, default=""))
    all_steps = sum(progress.prefixes[-1] for progress in by_seed.values()) / len(by_seed)
    first = sum(progress.prefixes[0] for progress in by_seed.values()) / len(by_seed)
    return Finding(contrast, task, verdict, tuple(by_seed), all_steps, first, tuple(notes), steps)


def judge(claim: Claim, studies: Mapping[str, StudyRuns]) -> Judgement:
    """Judge a claim. Decisive contrasts that the plan lacks are undecided, with that reason; others are left out.

    Args:
        claim: the claim.
        studies: finished runs by name of the study.
    """
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
            findings.append(_judge_contrast(runs, contrast, None))
            if contrast.per_task and len(runs.study.tasks) > 1:
                findings += [_judge_contrast(runs, contrast, task) for task in runs.study.tasks]
    return Judgement(claim, tuple(findings))


__all__ = [
    "CLAIMS",
    "Claim",
    "Contrast",
    "Finding",
    "Judgement",
    "compute_progress_by_seed",
    "judge",
]
