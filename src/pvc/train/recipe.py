"""Recipes: what `pvc train` is told, as a checked YAML file.

Everything is validated before anything runs; unknown keys are errors. Leaves out how a stage is run (`run.py`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from pvc.errors import ConfigError, UsageError


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelRecipe(_Strict):
    """Shape of a model that starts from nothing: keyword arguments of PVCVisionConfig and of the text config."""

    vision: dict[str, Any]
    text: dict[str, Any]
    vocab_size: int = Field(512, ge=263)
    num_frames: int = Field(8, ge=1)
    max_new_tokens: int = Field(32, ge=1)


class Stage(_Strict):
    """One stage of training.

    `patches`: the tower alone learns to name what each patch shows (nothing reads without it, see the docs);
    `chat`: the whole model learns to answer. A stage starts from the weights of the one before it; tensors whose
    shape changes with `downsample_ratio` start anew, and so do temporal blocks that the stage before did not have.
    `num_temporal_layers` overrides the model's (0 where every clip has one step).
    """

    name: str = Field(pattern=r"^[a-z0-9_-]+$")
    kind: Literal["patches", "chat"]
    steps: int = Field(ge=1)
    batch_size: int = Field(32, ge=1)
    learning_rate: float = Field(1e-3, gt=0)
    warmup_steps: int = Field(100, ge=0)
    weight_decay: float = Field(0.05, ge=0)
    max_grad_norm: float = Field(1.0, gt=0)
    downsample_ratio: float = 0.25
    image_steps: int = Field(4, ge=1)
    num_temporal_layers: int | None = Field(None, ge=0)
    tasks: dict[str, float]
    video_frames: dict[int, float] = Field(default_factory=lambda: {8: 1.0})
    save_steps: int = Field(500, ge=1)

    @model_validator(mode="after")
    def _weights(self) -> Stage:
        if not self.tasks or any(weight <= 0 for weight in self.tasks.values()):
            raise ValueError("tasks must name at least one task, with weights above 0")
        if not self.video_frames or any(weight <= 0 for weight in self.video_frames.values()):
            raise ValueError("video_frames must name at least one number of frames, with weights above 0")
        return self


class Recipe(_Strict):
    """A whole training: the model to start from and its stages."""

    name: str = Field(pattern=r"^[a-z0-9_-]+$")
    seed: int = 0
    model: ModelRecipe
    stages: list[Stage] = Field(min_length=1)

    @model_validator(mode="after")
    def _stage_names(self) -> Recipe:
        names = [stage.name for stage in self.stages]
        if len(set(names)) != len(names):
            raise ValueError("two stages have the same name")
        return self


def load_recipe(path: str | Path) -> Recipe:
    """Read and check a recipe.

    Raises:
        UsageError: no such file, or not YAML.
        ConfigError: a key or a value that is wrong, named with its place in the file.
    """
    path = Path(path)
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read recipe {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8 text") from error
    except yaml.YAMLError as error:
        raise UsageError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    try:
        return Recipe.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the recipe"
        raise ConfigError(f"{path}: {where}: {first['msg']}") from error


__all__ = ["ModelRecipe", "Recipe", "Stage", "load_recipe"]
