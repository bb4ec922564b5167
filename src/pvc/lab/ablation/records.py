"""What a finished run leaves behind: one JSON file `<study>-<arm>-<seed>.json`, read strictly.

Unknown keys, wrong types and impossible counts are refused with the file and the key. It also holds `Study`, the part
of the plan that a report needs. Leaves out running (`run`) and judging (`stats`, `claims`). Used by `run` and `report`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from pvc.errors import ConfigError, UsageError

# Tasks whose answer is a text that is read: a wrong character is not a wrong answer, so characters are counted.
TEXT_TASKS = frozenset({"read", "page", "rows", "digits", "pieces", "flicker", "board", "locate"})

# Numbers are strict ("3" and 3.0 are no counts); containers are not, so that a record can be made from plain lists.
Count = Annotated[int, Field(ge=0, strict=True)]
Positive = Annotated[int, Field(ge=1, strict=True)]
Number = Annotated[float, Field(strict=True)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.+-]+$")]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Parameters(_Strict):
    """Numbers of parameters by part; `total` may hold more than the four parts named."""

    tower: Count
    temporal: Count
    projector: Count
    language: Count
    total: Positive

    @model_validator(mode="after")
    def _total(self) -> Parameters:
        largest = max(self.tower, self.temporal, self.projector, self.language)
        if self.total < largest:
            raise ValueError(f"total is {self.total}, less than one part of {largest}")
        return self


class Training(_Strict):
    """How long the run trained and what it started from (`None`: from nothing)."""

    steps: Count
    batch_size: Positive
    samples: Count
    cpu_seconds: Annotated[Number, Field(ge=0)]
    start: str | None


class LossPoint(_Strict):
    """One point of the training curve."""

    step: Count
    loss: Number


class EvalPoint(_Strict):
    """Teacher-forced accuracy on a task while training."""

    step: Count
    task: Name
    teacher_forced: Annotated[Number, Field(ge=0, le=1)]


def _within(part: int, whole: int, names: str) -> None:
    if part > whole:
        raise ValueError(f"{names}: {part} of {whole}")


class Result(_Strict):
    """Counts of one task at one level (0: levels drawn). `steps`: steps of a picture used, or frames of a clip."""

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
    def _counts(self) -> Result:
        _within(self.right, self.count, "right of count")
        _within(self.characters_right, self.characters, "characters_right of characters")
        _within(self.teacher_forced_right, self.teacher_forced_tokens, "teacher_forced_right of teacher_forced_tokens")
        return self


class Subset(_Strict):
    """Characters read when the language model sees the tokens of the steps `kept` (0-based, rising) and no others."""

    task: Name
    kept: tuple[Count, ...]
    characters: Positive
    characters_right: Count

    @model_validator(mode="after")
    def _counts(self) -> Subset:
        if list(self.kept) != sorted(set(self.kept)):
            raise ValueError(f"kept is {list(self.kept)}; steps must rise and be different")
        _within(self.characters_right, self.characters, "characters_right of characters")
        return self


class RunRecord(_Strict):
    """One finished run: one arm of one study with one seed."""

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
    def _no_doubles(self) -> RunRecord:
        results = [(r.task, r.level, r.split, r.steps) for r in self.results]
        subsets = [(s.task, s.kept) for s in self.subsets]
        if len(set(results)) < len(results):
            raise ValueError("results holds two entries with the same task, level, split and steps")
        if len(set(subsets)) < len(subsets):
            raise ValueError("subsets holds two entries with the same task and kept")
        return self

    @property
    def file_name(self) -> str:
        return record_name(self.study, self.arm, self.seed)


def record_name(study: str, arm: str, seed: int) -> str:
    """File name of a run."""
    return f"{study}-{arm}-{seed}.json"


@dataclass(frozen=True)
class Study:
    """One comparison of arms that share seeds, tasks and held-out samples.

    arms: what each arm is, in a few words. default_steps: the steps (frames, for a clip) at which an arm is judged.
    split: the held-out split that claims are judged on. text_tasks: tasks counted by characters, the others by exact
    answers. chance: what guessing gets in a task, 0 where not named.
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
    """Read and check one run file.

    Raises:
        UsageError: it cannot be read.
        ConfigError: it is malformed, holds an unknown key, or is not named after what it holds.
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
        raise ConfigError(f"{path}: study, arm and seed: they belong into {record.file_name}")
    return record


def read_records(directory: str | Path) -> tuple[RunRecord, ...]:
    """All run files (`*.json`) of a folder, in the order of study, arm and seed; none is skipped.

    Raises:
        UsageError: no such folder.
        ConfigError: a file that is no run.
    """
    directory = Path(directory)
    if not directory.is_dir():
        raise UsageError(f"no folder of runs at {directory}")
    records = [read_record(path) for path in directory.glob("*.json")]
    return tuple(sorted(records, key=lambda record: (record.study, record.arm, record.seed)))


def write_record(record: RunRecord, directory: str | Path) -> Path:
    """Write a run file; it appears whole or not at all, so that a killed run is not taken for a finished one."""
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
