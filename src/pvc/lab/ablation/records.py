"""Records of finished runs, one JSON file `<study>-<arm>-<seed>.json` each, and `Study`, the report's view of a plan.

Records are read strictly: unknown keys, wrong types and impossible counts are errors that name the file and the key.
Training is in `run`, judging in `stats` and `claims`. Called by `run`, `report` and `pvc lab ablate`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from pvc.errors import ConfigError, UsageError

# Tasks whose answer is a text: characters are counted, since one wrong character does not make the answer worthless.
TEXT_TASKS = frozenset({"read", "page", "rows", "digits", "pieces", "flicker", "board", "locate"})

# Numbers are strict ("3" and 3.0 are not counts); containers are not, so that a record can be built from plain lists.
Count = Annotated[int, Field(ge=0, strict=True)]
Positive = Annotated[int, Field(ge=1, strict=True)]
Number = Annotated[float, Field(strict=True)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.+-]+$")]


class _StrictModel(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Parameters(_StrictModel):
    """Numbers of parameters.

    Attributes:
        tower: parameters of the vision tower.
        temporal: parameters of the temporal blocks.
        projector: parameters of the compressor.
        language: parameters of the language model.
        total: all parameters, which may be more than the sum of the four parts.
    """

    tower: Count
    temporal: Count
    projector: Count
    language: Count
    total: Positive

    @model_validator(mode="after")
    def _check_total(self) -> Parameters:
        largest = max(self.tower, self.temporal, self.projector, self.language)
        if self.total < largest:
            raise ValueError(f"total is {self.total}, less than one part of {largest}")
        return self


class Training(_StrictModel):
    """Length and start of the training.

    Attributes:
        steps: optimizer steps.
        batch_size: samples per step.
        samples: samples of all steps.
        cpu_seconds: CPU time of the process in seconds, including evaluations during training.
        start: description of the initial weights; None: random.
    """

    steps: Count
    batch_size: Positive
    samples: Count
    cpu_seconds: Annotated[Number, Field(ge=0)]
    start: str | None


class LossPoint(_StrictModel):
    """One point of the training curve.

    Attributes:
        step: optimizer step.
        loss: training loss.
    """

    step: Count
    loss: Number


class EvalPoint(_StrictModel):
    """Accuracy on a task during training.

    Attributes:
        step: optimizer step.
        task: name of the task.
        teacher_forced: teacher-forced accuracy in [0, 1].
    """

    step: Count
    task: Name
    teacher_forced: Annotated[Number, Field(ge=0, le=1)]


def _check_part(part: int, whole: int, names: str) -> None:
    if part > whole:
        raise ValueError(f"{names}: {part} of {whole}")


class Result(_StrictModel):
    """Counts of one task at one level.

    Attributes:
        task: name of the task.
        level: difficulty; 0: random levels.
        split: split of the held-out samples.
        steps: steps of a picture, or frames of a clip.
        count: answers.
        right: answers that are exactly right.
        characters: characters of all expected answers.
        characters_right: characters that the answers have right.
        teacher_forced_tokens: tokens of all expected answers.
        teacher_forced_right: tokens that are predicted right with teacher forcing.
    """

    task: Name
    level: Count
    split: Name
    steps: Positive
    count: Positive
    right: Count
    characters: Count
    characters_right: Count
    teacher_forced_tokens: Count
    teacher_forced_right: Count

    @model_validator(mode="after")
    def _check_counts(self) -> Result:
        _check_part(self.right, self.count, "right of count")
        _check_part(self.characters_right, self.characters, "characters_right of characters")
        _check_part(
            self.teacher_forced_right, self.teacher_forced_tokens, "teacher_forced_right of teacher_forced_tokens"
        )
        return self


class Subset(_StrictModel):
    """Counts of one task if the language model sees the tokens of some of the steps only.

    Attributes:
        task: name of the task.
        kept: steps whose tokens the language model sees, 0-based and ascending.
        characters: characters of all expected answers.
        characters_right: characters that the answers have right.
    """

    task: Name
    kept: tuple[Count, ...]
    characters: Positive
    characters_right: Count

    @model_validator(mode="after")
    def _check_counts(self) -> Subset:
        if list(self.kept) != sorted(set(self.kept)):
            raise ValueError(f"kept is {list(self.kept)}; steps must be ascending and different")
        _check_part(self.characters_right, self.characters, "characters_right of characters")
        return self


class RunRecord(_StrictModel):
    """One finished run.

    Attributes:
        study: name of the study.
        arm: name of the arm in the study.
        seed: seed of the training.
        commit: commit of the code.
        machine: architecture, cores and device.
        versions: versions of libraries by name.
        parameters: numbers of parameters.
        tokens: visual tokens of a picture or clip.
        train: length and start of the training.
        curve: training loss.
        evals: accuracy during training.
        results: counts of the trained arm.
        subsets: counts of the trained arm by subset of the steps; empty if it does not have four steps.
    """

    study: Name
    arm: Name
    seed: Count
    commit: str
    machine: str
    versions: dict[str, str]
    parameters: Parameters
    tokens: Positive
    train: Training
    curve: tuple[LossPoint, ...]
    evals: tuple[EvalPoint, ...]
    results: tuple[Result, ...]
    subsets: tuple[Subset, ...]

    @model_validator(mode="after")
    def _check_duplicates(self) -> RunRecord:
        results = [(r.task, r.level, r.split, r.steps) for r in self.results]
        subsets = [(s.task, s.kept) for s in self.subsets]
        if len(set(results)) < len(results):
            raise ValueError("results has two entries with the same task, level, split and steps")
        if len(set(subsets)) < len(subsets):
            raise ValueError("subsets has two entries with the same task and kept")
        return self

    @property
    def file_name(self) -> str:
        """Name of the record's file."""
        return record_name(self.study, self.arm, self.seed)


def record_name(study: str, arm: str, seed: int) -> str:
    """Return the file name of a run's record.

    Args:
        study: name of the study.
        arm: name of the arm.
        seed: of the training.
    """
    return f"{study}-{arm}-{seed}.json"


@dataclass(frozen=True)
class Study:
    """A comparison of arms that share seeds, tasks and held-out samples.

    Attributes:
        study: name of the study.
        title: heading in the report.
        arms: short description of each arm, by name.
        seeds: planned seeds.
        tasks: tasks of the training.
        default_steps: steps of a picture, or frames of a clip, at which each arm is judged.
        kind: kind of media.
        notes: paragraph for the report.
        split: held-out split that claims are judged on.
        text_tasks: tasks that are judged by characters; the others by exact answers.
        chance: accuracy of guessing by task; 0 for tasks that are missing.

    Raises:
        ConfigError: an empty field, or one that does not match the arms or tasks.
    """

    study: str
    title: str
    arms: Mapping[str, str]
    seeds: tuple[int, ...]
    tasks: tuple[str, ...]
    default_steps: Mapping[str, int]
    kind: Literal["image", "video"]
    notes: str = ""
    split: str = "test"
    text_tasks: frozenset[str] = TEXT_TASKS
    chance: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        where = f"study {self.study!r}"
        for key in ("arms", "seeds", "tasks"):
            if not getattr(self, key):
                raise ConfigError(f"{where}: {key} is empty")
        if self.kind not in ("image", "video"):
            raise ConfigError(f"{where}: kind is {self.kind!r}; it must be 'image' or 'video'")
        if set(self.default_steps) != set(self.arms):
            raise ConfigError(f"{where}: default_steps names {sorted(self.default_steps)}, arms {sorted(self.arms)}")
        unknown = sorted(set(self.chance) - set(self.tasks))
        if unknown:
            raise ConfigError(f"{where}: chance names tasks that the study lacks: {', '.join(unknown)}")


def read_record(path: str | Path) -> RunRecord:
    """Read and check one record.

    Raises:
        UsageError: the file cannot be read.
        ConfigError: the file is malformed, has an unknown key, or its name does not match its content.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read run file {path}: {error.strerror}") from error
    try:
        record = RunRecord.model_validate_json(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise ConfigError(f"{path}: {where}: {first['msg']}") from error
    if path.name != record.file_name:
        raise ConfigError(f"{path}: study, arm and seed do not match the file name; rename it to {record.file_name}")
    return record


def read_records(directory: str | Path) -> tuple[RunRecord, ...]:
    """Read all records (`*.json`) of a directory, ordered by study, arm and seed; no file is skipped.

    Raises:
        UsageError: the directory does not exist.
        ConfigError: a file is not a record.
    """
    directory = Path(directory)
    if not directory.is_dir():
        raise UsageError(f"no folder of runs at {directory}")
    records = [read_record(path) for path in directory.glob("*.json")]
    return tuple(sorted(records, key=lambda record: (record.study, record.arm, record.seed)))


def write_record(record: RunRecord, directory: str | Path) -> Path:
    """Write a record atomically, so that an interrupted run does not look finished.

    Args:
        record: of the run.
        directory: directory of the records.

    Returns:
        Path of the file.
    """
    path = Path(directory) / record.file_name
    part = path.with_suffix(".part")
    part.write_text(record.model_dump_json(indent=1) + "\n", encoding="utf-8")
    os.replace(part, path)
    return path


__all__ = [
    "TEXT_TASKS",
    "EvalPoint",
    "LossPoint",
    "Parameters",
    "Result",
    "RunRecord",
    "Study",
    "Subset",
    "Training",
    "read_record",
    "read_records",
    "record_name",
    "write_record",
]
