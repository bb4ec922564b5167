"""Report of an ablation: README.md and its plots, from the runs that are finished.

Planned runs that are missing are listed. The same records give the same text: it has no dates and no paths. Judging is
in `claims`, tables in `tables`, plots in `plots`. Called by `pvc lab ablate`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from pvc.errors import ConfigError, UsageError
from pvc.lab.ablation import plots
from pvc.lab.ablation import tables as t
from pvc.lab.ablation.claims import CLAIMS, Claim, compute_progress_by_seed, judge
from pvc.lab.ablation.records import RunRecord, Study
from pvc.lab.ablation.study_runs import StudyRuns
from pvc.lab.ablation.summary import format_claims, format_rules, format_table


def write_report(
    studies: Sequence[Study],
    records: Iterable[RunRecord],
    directory: str | Path,
    *,
    claims: Sequence[Claim] = CLAIMS,
    remarks: Mapping[str, str] | None = None,
) -> Path:
    """Write `README.md` and PNG plots.

    Args:
        studies: studies of the plan.
        records: finished runs.
        directory: directory to write to.
        claims: claims to judge.
        remarks: explanation of a claim's verdict, by the claim's letter.

    Returns:
        Path of the README.

    Raises:
        UsageError: no study.
        ConfigError: two studies or runs of one name, or a remark on a claim that is not judged.
    """
    if not studies:
        raise UsageError("a report needs at least one study")
    names = [study.study for study in studies]
    if len(set(names)) < len(names):
        raise ConfigError(f"two studies have the same name: {', '.join(names)}")
    remarks = dict(remarks or {})
    unknown = sorted(set(remarks) - {claim.letter for claim in claims})
    if unknown:
        raise ConfigError(f"remarks on claims that are not made: {', '.join(unknown)}")
    records = list(records)
    by_name = {study.study: StudyRuns(study, records) for study in studies}
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)

    judgements = [judge(claim, by_name) for claim in claims]
    lines = ["# Ablation", "", *_format_state(by_name), ""]
    lines += format_claims(judgements, by_name, remarks)
    forest = plots.plot_claims(judgements, directory / "claims.png")
    lines += ["All comparisons that have runs:", ""] if forest else []
    lines += _link_plot(forest, "Paired differences with 95 % intervals", directory / "claims.png")
    lines += format_rules(claims)
    palette = plots.assign_colours(list(by_name.values()))
    for runs in by_name.values():
        lines += _format_study(runs, palette, directory)
    lines += _list_missing(by_name, records)
    lines += _list_machines([record for runs in by_name.values() for record in runs.runs.values()])
    path = directory / "README.md"
    path.write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")
    return path


def _format_state(studies: Mapping[str, StudyRuns]) -> list[str]:
    """Describe how much of the plan is finished."""
    done = sum(len(runs.runs) for runs in studies.values())
    planned = sum(len(runs.study.arms) * len(runs.study.seeds) for runs in studies.values())
    if not done:
        return [f"**No run is finished yet** (0 of {planned} planned), so there are no results."]
    if done < planned:
        return [
            f"**{done} of {planned} planned runs are finished**; what is missing is [listed below](#what-is-missing). "
            "Everything here is from the finished ones."
        ]
    return [f"All {planned} planned runs are finished."]


def _link_plot(plot: Path | None, text: str, path: Path) -> list[str]:
    """Format the link to a plot; if there is none, remove the plot of earlier records at `path`."""
    if plot is None:
        path.unlink(missing_ok=True)
        return []
    return [f"![{text}]({plot.name})", ""]


def _format_study(runs: StudyRuns, palette: Mapping[str, str], directory: Path) -> list[str]:
    study = runs.study
    lines = [f"## {study.title} (`{study.study}`)", ""]
    if study.notes:
        lines += [study.notes.strip(), ""]
    lines += [t.build_arms_table(runs), ""]
    if any(t.is_without_evidence(runs, arm) for arm in study.arms):
        lines += [f"† {t.NO_EVIDENCE}", ""]
    if not runs.runs:
        for kind in ("steps", "curves", *(f"progress-{arm}" for arm in study.arms)):
            (directory / f"{kind}-{study.study}.png").unlink(missing_ok=True)
        return [*lines, "No run of this study is finished.", ""]
    lines += _format_accuracy(runs)
    lines += _format_steps(runs, palette, directory)
    lines += _format_progress(runs, directory)
    path = directory / f"curves-{study.study}.png"
    curves = _link_plot(plots.plot_curves(runs, palette, path), "Learning curves", path)
    return [*lines, "### Learning curves", "", "Thick: mean over seeds; thin: every seed.", "", *curves]


def _format_level(level: int) -> str:
    return f"level {level}" if level else "random levels"


def _format_accuracy(runs: StudyRuns) -> list[str]:
    study = runs.study
    lines = ["### Accuracy", ""]
    lines += [
        f"On the held-out split `{study.split}`, free-running, each arm at its default "
        f"{'steps' if study.kind == 'image' else 'frames'}. A dot stands for a seed without a run or result. "
        "¹ One seed: Wilson's interval over the test items, blind to how seeds differ and, for characters, too narrow, "
        "as those of one answer are not independent.",
        "",
    ]
    if len(study.tasks) > 1:
        lines += [t.build_mean_table(runs), ""]
    for task in study.tasks:
        levels = runs.get_levels(task)
        if not levels:
            lines += [f"**{task}**: no result.", ""]
        for level in levels:
            judged = "characters" if runs.get_metric(task) == "characters" else "exact answers"
            lines += [
                f"**{task}** ({_format_level(level)}; judged by {judged})",
                "",
                t.build_result_table(runs, task, level),
                "",
            ]
    others = t.build_other_splits_table(runs)
    if others:
        lines += ["Other splits, mean over seeds of what the task is judged by, %; no claim uses them:", "", others, ""]
    return lines


def _format_steps(runs: StudyRuns, palette: Mapping[str, str], directory: Path) -> list[str]:
    path = directory / f"steps-{runs.study.study}.png"
    link = _link_plot(plots.plot_steps(runs, palette, path), "Accuracy against steps", path)
    if not link:
        return []
    lines = [f"### Accuracy against {'steps' if runs.study.kind == 'image' else 'frames'}", ""]
    for task in runs.study.tasks:
        steps_table = t.build_steps_table(runs, task)
        if steps_table:
            levels = ", ".join(map(_format_level, t.group_by_steps(runs, task)[1]))
            lines += [f"**{task}** ({levels}), %:", "", steps_table, ""]
    return [*lines, *link]


def _format_progress(runs: StudyRuns, directory: Path) -> list[str]:
    """Format the gain of each step, for every arm with subsets."""
    lines: list[str] = []
    for arm in runs.study.arms:
        path = directory / f"progress-{arm}-{runs.study.study}.png"
        link = _link_plot(plots.plot_progress(runs, arm, path), f"What each step of {arm} adds", path)
        notes: list[str] = []
        for task in runs.study.tasks:
            lines += t.build_progress_tables(runs, arm, task)
            notes += compute_progress_by_seed(runs, arm, task)[1]
        lines += link
        if notes:
            lines += ["Left out: " + "; ".join(notes) + ".", ""]
    if not lines:
        return []
    return [
        "### What each step adds",
        "",
        "All steps are encoded; the language model sees the tokens of some of them only. Unless the arm was "
        "trained for that, part of a loss may come from the unfamiliar input. *In order*: step k after steps 1 to "
        "k-1. *All orders*: the mean over every order of the steps. Where both agree for all steps, the steps are a "
        "partition of the content; where later steps add more in order than over all orders, they build on earlier "
        "ones. *Lost without it*: all other steps are used. Without any step, accuracy counts as chance"
        f"{_format_chance(runs)}.",
        "",
        *lines,
    ]


def _format_chance(runs: StudyRuns) -> str:
    texts = [f"{task} {share * 100:.1f} %" for task, share in runs.study.chance.items()]
    return f" ({', '.join(texts)}; others 0)" if texts else " (0)"


def _list_missing(studies: Mapping[str, StudyRuns], records: Sequence[RunRecord]) -> list[str]:
    """List missing runs, missing results of finished runs, and runs that the plan does not have."""
    lines = ["## What is missing", ""]
    absent = []
    for runs in studies.values():
        study = runs.study
        for arm in study.arms:
            seeds = [seed for seed in study.seeds if (arm, seed) not in runs.runs]
            if seeds:
                absent.append([study.study, arm, ", ".join(map(str, seeds)), "not run"])
            for seed in runs.get_seeds(arm):
                tasks = [task for task in study.tasks if not runs.get_results(arm, seed, task)]
                if tasks:
                    text = f"no result at {study.default_steps[arm]} steps for {', '.join(tasks)}"
                    absent.append([study.study, arm, str(seed), text.replace("steps", _get_unit(study))])
    lines += [format_table(("study", "arm", "seeds", "what"), absent) if absent else "Nothing that was planned.", ""]
    extra = [record.file_name for record in records if record.study not in studies]
    extra += [record.file_name for runs in studies.values() for record in runs.unplanned]
    if extra:
        lines += ["Runs that the plan does not name, used nowhere: " + ", ".join(f"`{n}`" for n in sorted(extra)), ""]
    return lines


def _get_unit(study: Study) -> str:
    return "steps" if study.kind == "image" else "frames"


def _list_machines(records: Sequence[RunRecord]) -> list[str]:
    """List commits, machines and versions of the runs, and their differences."""
    if not records:
        return []
    lines = ["## Where the runs come from", ""]
    kinds: tuple[tuple[str, Callable[[RunRecord], str]], ...] = (
        ("commit", lambda record: f"`{record.commit}`"),
        ("machine", lambda record: record.machine),
        (
            "versions",
            lambda record: ", ".join(f"{k} {v}" for k, v in sorted(record.versions.items())) or "not recorded",
        ),
    )
    for name, get in kinds:
        groups: dict[str, list[RunRecord]] = {}
        for record in records:
            groups.setdefault(get(record), []).append(record)
        if len(groups) == 1:
            lines.append(f"- {name}: {next(iter(groups))} (all {len(records)} runs)")
            continue
        lines.append(f"- **{name} differs between runs**:")
        # Only the runs of the smaller groups are listed one by one.
        (value, largest), *others = sorted(groups.items(), key=lambda item: -len(item[1]))
        lines.append(f"  - {value}: {len(largest)} runs")
        for value, group in others:
            lines.append(f"  - {value}: " + ", ".join(f"{r.study} {r.arm} seed {r.seed}" for r in group))
    if any(record.commit.endswith("-dirty") for record in records):
        lines.append("- A commit marked `-dirty` had uncommitted changes, which are not recorded.")
    sizes = {(r.study, r.train.steps, r.train.batch_size) for r in records}
    for study in sorted({record.study for record in records}):
        lengths = sorted({f"{steps:,} steps of {batch}" for name, steps, batch in sizes if name == study})
        lines.append(
            f"- training of `{study}`: {', '.join(lengths)}" + (" (**not the same for all**)" * (len(lengths) > 1))
        )
    total = sum(record.train.cpu_seconds for record in records) / 3600
    return [*lines, f"- training time of all: {total:.1f} CPU hours", ""]


__all__ = ["write_report"]
