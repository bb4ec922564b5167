"""Finished runs of one study, and accuracies of their results. Called by `claims`, `tables`, `plots` and `report`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from pvc.errors import ConfigError
from pvc.lab.ablation.records import Result, RunRecord, Study

Metric = Literal["characters", "exact", "teacher_forced"]


class StudyRuns:
    """Finished runs of one study.

    Args:
        study: the study.
        records: runs of any study; those of other studies are skipped.

    Attributes:
        runs: planned runs by arm and seed.
        unplanned: runs of arms or seeds that the plan lacks.

    Raises:
        ConfigError: two runs have the same arm and seed.
    """

    def __init__(self, study: Study, records: Iterable[RunRecord]) -> None:
        self.study = study
        self.runs: dict[tuple[str, int], RunRecord] = {}
        self.unplanned: list[RunRecord] = []
        file_names = set()
        for record in records:
            if record.study != study.study:
                continue
            if record.file_name in file_names:
                raise ConfigError(f"two runs of study {record.study!r}, arm {record.arm!r}, seed {record.seed}")
            file_names.add(record.file_name)
            if record.arm in study.arms and record.seed in study.seeds:
                self.runs[record.arm, record.seed] = record
            else:
                self.unplanned.append(record)

    def get_seeds(self, arm: str) -> tuple[int, ...]:
        """Return the seeds of an arm with a finished run, in the plan's order."""
        return tuple(seed for seed in self.study.seeds if (arm, seed) in self.runs)

    def get_records(self, arm: str) -> list[RunRecord]:
        """Return the finished runs of an arm, in the order of `get_seeds`."""
        return [self.runs[arm, seed] for seed in self.get_seeds(arm)]

    def get_metric(self, task: str) -> Metric:
        """Return the metric that a task is judged by: characters if the answer is a text, else exact answers."""
        return "characters" if task in self.study.text_tasks else "exact"

    def get_results(self, arm: str, seed: int, task: str, steps: int | None = None) -> dict[int, Result]:
        """Return the results of a run on the study's split, by level.

        Args:
            arm: name of the arm.
            seed: of the run.
            task: name of the task.
            steps: of a picture or clip; None for the arm's default.
        """
        steps = self.study.default_steps[arm] if steps is None else steps
        record = self.runs[arm, seed]
        results = [r for r in record.results if (r.task, r.split, r.steps) == (task, self.study.split, steps)]
        return {result.level: result for result in results}

    def get_levels(self, task: str) -> tuple[int, ...]:
        """Return the levels at which any run was evaluated on a task."""
        levels = {
            result.level
            for record in self.runs.values()
            for result in record.results
            if (result.task, result.split) == (task, self.study.split)
        }
        return tuple(sorted(levels))


def get_counts(result: Result, metric: Metric) -> tuple[int, int]:
    """Return the numbers of right items and of all items of a result.

    Args:
        result: counts of a task.
        metric: "characters" and "exact" are free-running, "teacher_forced" counts tokens.
    """
    if metric == "characters":
        return result.characters_right, result.characters
    if metric == "exact":
        return result.right, result.count
    return result.teacher_forced_right, result.teacher_forced_tokens


def compute_share(result: Result, metric: Metric) -> float | None:
    """Compute the accuracy of a result.

    Args:
        result: counts of a task.
        metric: as for `get_counts`.

    Returns:
        Share in [0, 1]; None if the result has no items.
    """
    right, total = get_counts(result, metric)
    return right / total if total else None


__all__ = ["Metric", "StudyRuns", "compute_share", "get_counts"]
