"""Schema of an ablation's YAML file: the model, the base that every seed trains first, and the studies.

Arms are in `arms.py`, training in `run.py`. Called by `pvc lab ablate`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from pvc.lab.ablation.arms import ARMS
from pvc.lab.ablation.records import Study
from pvc.train.recipe import ModelRecipe, Recipe, Stage, _Strict, load_checked


class ArmPlan(_Strict):
    """One arm of a study.

    Attributes:
        like: name of an arm of `arms.ARMS`.
        summary: description for the report; None for the arm's.
        image_steps: weight of each number of steps of a picture in training; None for the arm's.
        steps: optimizer steps; None for the study's.
        downsample_ratio: None for the arm's.
        init: initialisation of the compressor from the base's; "exact" is the closed form, see `Stage.init`.
        vision: keys of the vision config to override.
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
    """Arms that are compared on the same samples and start from the same weights.

    Attributes:
        name: of the study.
        title: heading in the report.
        kind: kind of media.
        seeds: seeds of the training runs.
        arms: arms by name.
        base: stages that every seed trains after the plan's base and before the arms.
        base_seed: seed of the base that all seeds start from; None: each trains a base. It saves time if a base takes
            an hour.
        stage: training of every arm; the arm sets ratio, steps and temporal layers.
        count: held-out samples per task.
        subset_count: held-out samples per task for every subset of the steps.
        level: difficulty of the held-out samples.
        frames: frames of a clip.
        evaluate_steps: numbers of steps to measure arms with several steps at.
        chance: accuracy of guessing by task; 0 for tasks that are missing.
        notes: paragraph for the report.
        data_seed: must differ from 0 if the study trains on the task and level of the base, to get other samples.
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
    """An ablation: every seed trains the base, from which all its arms start.

    Attributes:
        name: of the ablation.
        model: model of all arms.
        base: stages of the base: stage 0, then the base model.
        studies: comparisons.
        remarks: explanations by claim letter, which the report prints beside its verdicts.
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
        """Build the training recipe of one seed.

        Args:
            seed: of the training.
            stages: stages to train; None for those of the base.
            vision: keys of the vision config to override.
        """
        model = self.model.model_copy(update={"vision": {**self.model.vision, **(vision or {})}})
        return Recipe(name=self.name, seed=seed, model=model, stages=list(stages or self.base))


def studies(plan: Plan) -> tuple[Study, ...]:
    """Build the report's description of each of the plan's studies."""
    return tuple(
        Study(
            study=study.name,
            title=study.title,
            arms={name: arm.summary or ARMS[arm.like].summary for name, arm in study.arms.items()},
            seeds=study.seeds,
            tasks=tuple(study.stage.tasks),
            default_steps={name: _get_default_steps(study, arm) for name, arm in study.arms.items()},
            kind=study.kind,
            notes=study.notes,
            chance=study.chance,
        )
        for study in plan.studies
    )


def _get_default_steps(study: StudyPlan, arm: ArmPlan) -> int:
    """Return the steps of a picture, or the frames of a clip, at which an arm is judged."""
    if study.kind == "video":
        return round((study.frames or 8) * ARMS[arm.like].frames_part)
    return max(arm.image_steps) if arm.image_steps else ARMS[arm.like].steps


def load_plan(path: str | Path) -> Plan:
    """Read and check an ablation's YAML file; errors as in `pvc.train.recipe.load_checked`."""
    return load_checked(path, Plan)


__all__ = ["ArmPlan", "Plan", "StudyPlan", "load_plan", "studies"]
