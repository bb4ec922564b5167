"""What an ablation is told: a checked YAML file with the model, how every seed starts, and its studies.

Leaves out how an arm is built (`arms.py`) and run (`run.py`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from pvc.lab.ablation.arms import ARMS
from pvc.lab.ablation.records import Study
from pvc.train.recipe import ModelRecipe, Recipe, Stage, _Strict, load_checked


class ArmPlan(_Strict):
    """One arm of a study: one of `arms.ARMS`, and what is different about it.

    `image_steps`, `steps`, `downsample_ratio` override the arm's; `vision` overrides keys of the vision config. `init`:
    how the compressor starts from that of the base (`exact`: in closed form, see `Stage.init`).
    """

    like: str
    summary: str | None = None
    image_steps: dict[int, float] | None = None
    steps: int | None = Field(None, ge=1)
    downsample_ratio: float | None = None
    init: Literal["mean", "exact"] = "mean"
    vision: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _known(self) -> ArmPlan:
        if self.like not in ARMS:
            raise ValueError(f"there is no arm {self.like!r}; there are {', '.join(ARMS)}")
        return self


class StudyPlan(_Strict):
    """Arms compared on the same samples from the same start.

    `base`: stages that every seed trains on top of the plan's base before any arm of this study starts.
    `base_seed`: every seed starts from the base of this one, where a base that has learned enough takes an hour.
    `stage` says how every arm is trained; what makes the arm (ratio, steps, temporal layers) is set by the arm.
    `evaluate_steps`: numbers of steps that arms with several are measured with. `level`: of the held-out samples.
    `data_seed`: a study that trains on the base's own task and level needs another than 0, to have other samples.
    `count` held-out samples a task are measured, `subset_count` for every subset of the steps.
    """

    name: str = Field(pattern=r"^[a-z0-9_]+$")
    title: str
    kind: Literal["image", "video"]
    seeds: tuple[int, ...] = Field(min_length=1)
    arms: dict[str, ArmPlan] = Field(min_length=1)
    base: tuple[Stage, ...] = ()
    base_seed: int | None = Field(None, ge=0)
    stage: Stage
    count: int = Field(500, ge=1)
    subset_count: int = Field(200, ge=1)
    level: int | None = None
    frames: int | None = None
    evaluate_steps: tuple[int, ...] = (1, 2, 3, 4)
    chance: dict[str, float] = Field(default_factory=dict)
    notes: str = ""
    data_seed: int = Field(0, ge=0)


class Plan(_Strict):
    """A whole ablation: every seed trains `base` first (stage 0, then the base model), and all its arms start there.

    `remarks` are findings of whoever looked for the reasons, by claim; the report prints them beside its verdicts.
    """

    name: str = Field(pattern=r"^[a-z0-9_]+$")
    model: ModelRecipe
    base: tuple[Stage, ...] = Field(min_length=1)
    studies: tuple[StudyPlan, ...] = Field(min_length=1)
    remarks: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _names(self) -> Plan:
        names = [study.name for study in self.studies]
        if len(set(names)) != len(names):
            raise ValueError("two studies have the same name")
        return self

    @property
    def size(self) -> int:
        """Pixels per side of a frame."""
        return int(self.model.vision["image_size"])

    def recipe(
        self, seed: int, stages: tuple[Stage, ...] | None = None, vision: dict[str, Any] | None = None
    ) -> Recipe:
        """The training recipe of one seed: its base, or other stages."""
        model = self.model.model_copy(update={"vision": {**self.model.vision, **(vision or {})}})
        return Recipe(name=self.name, seed=seed, model=model, stages=list(stages or self.base))


def studies(plan: Plan) -> tuple[Study, ...]:
    """The plan's studies as the report needs them."""
    return tuple(
        Study(
            study=own.name,
            title=own.title,
            arms={name: arm.summary or ARMS[arm.like].summary for name, arm in own.arms.items()},
            seeds=own.seeds,
            tasks=tuple(own.stage.tasks),
            default_steps={name: _steps(own, arm) for name, arm in own.arms.items()},
            kind=own.kind,
            notes=own.notes,
            chance=own.chance,
        )
        for own in plan.studies
    )


def _steps(study: StudyPlan, arm: ArmPlan) -> int:
    """Steps of a picture, or frames of a clip, that an arm is judged at."""
    if study.kind == "video":
        return round((study.frames or 8) * ARMS[arm.like].frames_part)
    return max(arm.image_steps) if arm.image_steps else ARMS[arm.like].steps


def load_plan(path: str | Path) -> Plan:
    """Read and check an ablation; errors as in `pvc.train.recipe.load_checked`."""
    return load_checked(path, Plan)


__all__ = ["ArmPlan", "Plan", "StudyPlan", "load_plan", "studies"]
