"""Markdown of the judged claims: a short table, then each claim with its numbers and a sentence.

Judging is in `claims`, tables of the studies in `tables`. Called by `report`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from pvc.lab.ablation.claims import Claim, Finding, Judgement, compute_progress_by_seed
from pvc.lab.ablation.stats import MARGIN, MIN_GAIN, RULES, Estimate, describe_progress
from pvc.lab.ablation.study_runs import StudyRuns

_MARGIN = f"{MARGIN * 100:.0f} points"
_CONCLUSIONS = {
    ("non_inferior", "supported"): f"a loss of {_MARGIN} or more is ruled out",
    ("non_inferior", "not supported"): f"{{left}} loses more than {_MARGIN}",
    ("non_inferior", "undecided"): f"a loss of {_MARGIN} is neither shown nor ruled out",
    ("inferior", "supported"): f"{{left}} loses more than {_MARGIN}",
    ("inferior", "not supported"): f"a loss of {_MARGIN} or more is ruled out",
    ("inferior", "undecided"): f"a loss of {_MARGIN} is neither shown nor ruled out",
    ("better", "supported"): "{left} is better",
    ("better", "not supported"): f"a gain of {MIN_GAIN * 100:.1f} point or more is ruled out",
    ("better", "undecided"): "a gain is neither shown nor ruled out",
}


def format_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Format a Markdown table, and escape bars inside cells.

    Args:
        header: names of the columns.
        rows: cells of every row.
    """
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join(lines)


def format_points(share: float) -> str:
    """Format a share in [0, 1] in per cent."""
    return f"{share * 100:.1f}"


def format_difference(estimate: Estimate | None) -> str:
    """Format a difference in points with its interval."""
    if estimate is None:
        return "-"
    mean = f"{estimate.mean * 100:+.1f}"
    if estimate.lower is None or estimate.upper is None:
        return mean
    return f"{mean} ({estimate.lower * 100:+.1f} to {estimate.upper * 100:+.1f})"


def _format_seeds(count: int) -> str:
    """Format a number of seeds."""
    return f"{count} seed{'' if count == 1 else 's'}"


def _format_name(finding: Finding, studies: Mapping[str, StudyRuns]) -> str:
    contrast = finding.contrast
    left = contrast.left if contrast.left_steps is None else f"{contrast.left} at {contrast.left_steps}"
    right = contrast.right if contrast.right_steps is None else f"{contrast.right} at {contrast.right_steps}"
    name = f"{contrast.study}: {left}" if right is None else f"{contrast.study}: {left} - {right}"
    if contrast.rule == "progressive":
        name += ", all steps - the first"
    runs = studies.get(contrast.study)
    several = runs is not None and len(runs.study.tasks) > 1
    if finding.task is not None and several:
        return f"{name}, {finding.task}"
    return f"{name}, mean over tasks" if several else name


def _format_progress(finding: Finding, runs: StudyRuns) -> str:
    """Describe the gain of each step, in order and averaged over orders, and how steps share the content."""
    by_seed, _ = compute_progress_by_seed(runs, finding.contrast.left, finding.task or runs.study.tasks[0])
    means = {
        name: [sum(step) / len(by_seed) for step in zip(*(getattr(p, name) for p in by_seed.values()), strict=True)]
        for name in ("gains", "averaged", "alone")
    }
    gains = ", ".join(format_points(gain) for gain in means["gains"])
    averaged = ", ".join(format_points(gain) for gain in means["averaged"])
    text = f"In order the steps add {gains} points; averaged over all orders {averaged}."
    if len(means["gains"]) > 1:
        text += f" That is {describe_progress(means['gains'], means['averaged'], means['alone'])}."
    return text


def _format_sentence(finding: Finding, studies: Mapping[str, StudyRuns]) -> str:
    contrast, verdict = finding.contrast, finding.verdict
    name = f"*{contrast.study}*" if finding.task is None else f"*{contrast.study}, {finding.task}*"
    if verdict.estimate is None or finding.left is None or finding.right is None:
        return f"{name}: {contrast.question}: no numbers yet ({verdict.reason or 'no runs'})."
    seeds = _format_seeds(len(finding.seeds))
    if contrast.rule == "progressive":
        missed = [str(step) for step, other in enumerate(finding.steps, 2) if other.outcome != "supported"]
        conclusion = "every step adds" if not missed else f"not shown of step {', '.join(missed)}"
        conclusion = f"no conclusion ({verdict.reason})" if verdict.reason else f"{conclusion} ({seeds})"
        return f"{name}: {contrast.question}: {conclusion}. {_format_progress(finding, studies[contrast.study])}"
    means = f"{contrast.left} has {format_points(finding.left)} %, {contrast.right} {format_points(finding.right)} %"
    if verdict.reason:
        conclusion = f"no conclusion ({verdict.reason})"
    else:
        conclusion = _CONCLUSIONS[contrast.rule, verdict.outcome].format(left=contrast.left)
    return f"{name}: {contrast.question}: {means} over {seeds}; {conclusion}."


def _build_rows(judgement: Judgement, studies: Mapping[str, StudyRuns]) -> list[list[str]]:
    rows = []
    for finding in judgement.findings:
        name = _format_name(finding, studies)
        if finding.task is not None and not finding.decisive:
            name = f"- {finding.task}"
        elif not finding.contrast.decisive:
            name += " (beside)"
        verdict = finding.verdict.text
        rows.append(
            [name, format_difference(finding.verdict.estimate), str(len(finding.seeds)), finding.contrast.rule, verdict]
        )
    labels = {"non_inferior": "no loss", "inferior": "loss", "better": "gain", "progressive": "each step adds"}
    return [[*row[:3], labels[row[3]], row[4]] for row in rows]


def _format_claim(judgement: Judgement, studies: Mapping[str, StudyRuns], remark: str) -> list[str]:
    claim = judgement.claim
    lines = [f"### ({claim.letter}) {claim.text}", "", f"**{judgement.outcome}**", ""]
    # Rows of single tasks are in the table only.
    lines += [f"- {_format_sentence(f, studies)}" for f in judgement.findings if f.task is None or f.decisive]
    header = ("comparison", "difference, points (95 %)", "seeds", "rule", "verdict")
    lines += ["", format_table(header, _build_rows(judgement, studies)), ""]
    notes = [f"- {_format_name(f, studies)}: {'; '.join(f.notes)}." for f in judgement.findings if f.notes]
    if notes:
        lines += ["About these numbers:", "", *notes, ""]
    if claim.caveat:
        lines += [claim.caveat, ""]
    if remark:
        lines += [remark, ""]
    return lines


def format_claims(
    judgements: Sequence[Judgement], studies: Mapping[str, StudyRuns], remarks: Mapping[str, str]
) -> list[str]:
    """Format the summary: a verdict for each claim, then the evidence.

    Args:
        judgements: judged claims.
        studies: finished runs by name of the study.
        remarks: a paragraph by claim letter.

    Returns:
        Lines of Markdown.
    """
    lines = ["## Verdicts", ""]
    rows = []
    for judgement in judgements:
        decisive = [f for f in judgement.findings if f.decisive]
        evidence = [
            f"{_format_name(f, studies)}: {format_difference(f.verdict.estimate)}"
            for f in decisive
            if f.verdict.estimate is not None
        ]
        rows.append(
            [judgement.claim.letter, judgement.claim.text, f"**{judgement.outcome}**", "<br>".join(evidence) or "-"]
        )
    lines += [format_table(("", "claim", "verdict", "points (95 %)"), rows), ""]
    for judgement in judgements:
        lines += _format_claim(judgement, studies, remarks.get(judgement.claim.letter, ""))
    return lines


def format_rules(claims: Sequence[Claim]) -> list[str]:
    """Format the description of the rules that the claims use, as lines of Markdown."""
    used = [rule for rule in RULES if any(contrast.rule == rule for c in claims for contrast in c.contrasts)]
    return [
        "## How it is judged",
        "",
        "- Accuracy is free-running (the model writes, the answer is compared) on held-out samples: characters "
        "right (length less edits) for tasks whose answer is a text, exact answers for the others; a mean over tasks "
        "weighs each the same.",
        "- Differences are paired: the same seed in both arms, which share their start. Only seeds that both arms have "
        "are used. Intervals are 95 %, Student's t over seeds; they say how training varies, not how the test does.",
        *(f"- Rule {RULES[rule]}." for rule in used),
        "- Fewer than 3 paired seeds: always undecided. Both arms above 98 %: undecided, since a difference of 2 "
        "points could not have shown (for *no loss* only where every other arm of the study is near the ceiling too: "
        "one that is not shows that the task tells arms apart). Both within 5 points of chance: undecided, neither has "
        "learned the task.",
        "- A claim with several comparisons is supported if all are, not supported if one is not, else undecided. Rows "
        "marked *beside*, and single tasks below a mean, inform and do not count. Nothing is corrected for the number "
        "of comparisons: of twenty single tasks, one interval may miss by chance.",
        "",
    ]


__all__ = [
    "format_claims",
    "format_difference",
    "format_points",
    "format_rules",
    "format_table",
]
