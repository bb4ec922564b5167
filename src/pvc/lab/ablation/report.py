"""The report of an ablation: README.md and its plots, from whatever runs are finished.

What the plan holds and no run shows is listed, never left out. The same records give the same text: no dates, no
paths. Leaves out the judging (`claims`), the tables and the plots, each in its file. Used by `pvc ablate`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from pvc.errors import ConfigError, UsageError
from pvc.lab.ablation import plots
from pvc.lab.ablation import tables as t
from pvc.lab.ablation.claims import CLAIMS, Claim, StudyRuns, judge, progress_by_seed
from pvc.lab.ablation.records import RunRecord, Study
from pvc.lab.ablation.summary import claims_markdown, rules_markdown, table


def write_report(
    studies: Sequence[Study],
    records: Iterable[RunRecord],
    directory: str | Path,
    *,
    claims: Sequence[Claim] = CLAIMS,
    remarks: Mapping[str, str] | None = None,
) -> Path:
    """Write `README.md` and PNG plots into `directory`, and return the README's path.

    remarks: a paragraph for a claim, by its letter: why it is not supported, once somebody has looked.
    Raises UsageError without a study, ConfigError for doubles (studies, runs) and remarks on claims nobody makes.
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
    lines = ["# Ablation", "", *_state(by_name), ""]
    lines += claims_markdown(judgements, by_name, remarks)
    forest = plots.plot_claims(judgements, directory / "claims.png")
    lines += ["All comparisons that have runs:", ""] if forest else []
    lines += _picture(forest, "Paired differences with 95 % intervals", directory / "claims.png")
    lines += rules_markdown(claims)
    palette = plots.colours(list(by_name.values()))
    for runs in by_name.values():
        lines += _study(runs, palette, directory)
    lines += _missing(by_name, records)
    lines += _machines([record for runs in by_name.values() for record in runs.runs.values()])
    path = directory / "README.md"
    path.write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")
    return path


def _state(studies: Mapping[str, StudyRuns]) -> list[str]:
    """How much of the plan is there."""
    done = sum(len(runs.runs) for runs in studies.values())
    planned = sum(len(runs.study.arms) * len(runs.study.seeds) for runs in studies.values())
    if not done:
        return [f"**No run is finished yet** (0 of {planned} planned): nothing can be said."]
    if done < planned:
        return [
            f"**{done} of {planned} planned runs are finished**; what is missing is [listed below](#what-is-missing). "
            "Everything here is from the finished ones."
        ]
    return [f"All {planned} planned runs are finished."]


def _picture(made: Path | None, text: str, place: Path) -> list[str]:
    """The link to a plot; a plot of earlier records that no longer applies is removed."""
    if made is None:
        place.unlink(missing_ok=True)
        return []
    return [f"![{text}]({made.name})", ""]


def _study(runs: StudyRuns, palette: Mapping[str, str], directory: Path) -> list[str]:
    study = runs.study
    lines = [f"## {study.title} (`{study.study}`)", ""]
    if study.notes:
        lines += [study.notes.strip(), ""]
    lines += [t.arms_table(runs), ""]
    if any(t.is_no_evidence(runs, arm) for arm in study.arms):
        lines += [f"† {t.NO_EVIDENCE}", ""]
    if not runs.runs:
        for kind in ("steps", "curves", *(f"progress-{arm}" for arm in study.arms)):
            (directory / f"{kind}-{study.study}.png").unlink(missing_ok=True)
        return [*lines, "No run of this study is finished.", ""]
    lines += _accuracy(runs)
    lines += _against_steps(runs, palette, directory)
    lines += _progress(runs, directory)
    place = directory / f"curves-{study.study}.png"
    curves = _picture(plots.plot_curves(runs, palette, place), "Learning curves", place)
    return [*lines, "### Learning curves", "", "Thick: mean over seeds; thin: every seed.", "", *curves]


def _level(level: int) -> str:
    return f"level {level}" if level else "levels drawn"


def _accuracy(runs: StudyRuns) -> list[str]:
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
        lines += [t.mean_table(runs), ""]
    for task in study.tasks:
        levels = runs.levels(task)
        if not levels:
            lines += [f"**{task}**: no result.", ""]
        for level in levels:
            judged = "characters" if runs.metric(task) == "characters" else "exact answers"
            lines += [f"**{task}** ({_level(level)}; judged by {judged})", "", t.result_table(runs, task, level), ""]
    others = t.other_splits_table(runs)
    if others:
        lines += ["Other splits, mean over seeds of what the task is judged by, %; no claim uses them:", "", others, ""]
    return lines


def _against_steps(runs: StudyRuns, palette: Mapping[str, str], directory: Path) -> list[str]:
    place = directory / f"steps-{runs.study.study}.png"
    picture = _picture(plots.plot_steps(runs, palette, place), "Accuracy against steps", place)
    if not picture:
        return []
    lines = [f"### Accuracy against {'steps' if runs.study.kind == 'image' else 'frames'}", ""]
    for task in runs.study.tasks:
        found = t.steps_table(runs, task)
        if found:
            levels = ", ".join(map(_level, t.steps_by_arm(runs, task)[1]))
            lines += [f"**{task}** ({levels}), %:", "", found, ""]
    return [*lines, *picture]


def _progress(runs: StudyRuns, directory: Path) -> list[str]:
    """What each step adds, for every arm with subsets."""
    lines: list[str] = []
    for arm in runs.study.arms:
        place = directory / f"progress-{arm}-{runs.study.study}.png"
        picture = _picture(plots.plot_progress(runs, arm, place), f"What each step of {arm} adds", place)
        notes: list[str] = []
        for task in runs.study.tasks:
            lines += t.progress_tables(runs, arm, task)
            notes += progress_by_seed(runs, arm, task)[1]
        lines += picture
        if notes:
            lines += ["Left out: " + "; ".join(notes) + ".", ""]
    if not lines:
        return []
    return [
        "### What each step adds",
        "",
        "All steps are encoded; the language model is shown the tokens of some of them only. Unless the arm was "
        "trained for that, part of a loss may be its surprise. *In order*: step k after steps 1 to k-1. *All orders*: "
        "the mean over every order of the steps. Where both agree for all steps, the steps are a partition of the "
        "content; where later steps add more in order than over all orders, they build on earlier ones. *Lost without "
        "it*: all other steps are shown. Without any step, accuracy counts as chance"
        f"{_chance(runs)}.",
        "",
        *lines,
    ]


def _chance(runs: StudyRuns) -> str:
    named = [f"{task} {share * 100:.1f} %" for task, share in runs.study.chance.items()]
    return f" ({', '.join(named)}; others 0)" if named else " (0)"


def _missing(studies: Mapping[str, StudyRuns], records: Sequence[RunRecord]) -> list[str]:
    """Planned runs that are not there, results that a finished run lacks, and runs that nobody planned."""
    lines = ["## What is missing", ""]
    absent = []
    for runs in studies.values():
        study = runs.study
        for arm in study.arms:
            seeds = [seed for seed in study.seeds if (arm, seed) not in runs.runs]
            if seeds:
                absent.append([study.study, arm, ", ".join(map(str, seeds)), "not run"])
            for seed in runs.seeds(arm):
                tasks = [task for task in study.tasks if not runs.results(arm, seed, task)]
                if tasks:
                    what = f"no result at {study.default_steps[arm]} steps for {', '.join(tasks)}"
                    absent.append([study.study, arm, str(seed), what.replace("steps", _unit(study))])
    lines += [table(("study", "arm", "seeds", "what"), absent) if absent else "Nothing that was planned.", ""]
    extra = [record.file_name for record in records if record.study not in studies]
    extra += [record.file_name for runs in studies.values() for record in runs.unplanned]
    if extra:
        lines += ["Runs that the plan does not name, used nowhere: " + ", ".join(f"`{n}`" for n in sorted(extra)), ""]
    return lines


def _unit(study: Study) -> str:
    return "steps" if study.kind == "image" else "frames"


def _machines(records: Sequence[RunRecord]) -> list[str]:
    """Where the runs come from, and in what they differ."""
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
        # The largest group is the rule; only the others are named run by run.
        (value, most), *others = sorted(groups.items(), key=lambda item: -len(item[1]))
        lines.append(f"  - {value}: {len(most)} runs")
        for value, of in others:
            lines.append(f"  - {value}: " + ", ".join(f"{r.study} {r.arm} seed {r.seed}" for r in of))
    if any(record.commit.endswith("-dirty") for record in records):
        lines.append("- A commit marked `-dirty` had changes on top that nobody can look up.")
    sizes = {(r.study, r.train.steps, r.train.batch_size) for r in records}
    for study in sorted({record.study for record in records}):
        mine = sorted({f"{steps:,} steps of {batch}" for name, steps, batch in sizes if name == study})
        lines.append(f"- training of `{study}`: {', '.join(mine)}" + (" (**not the same for all**)" * (len(mine) > 1)))
    total = sum(record.train.cpu_seconds for record in records) / 3600
    return [*lines, f"- training time of all: {total:.1f} CPU hours", ""]


__all__ = ["write_report"]
