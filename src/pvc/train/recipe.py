"""Training recipes: YAML files that are validated before anything runs. Unknown keys are errors.

The models of one stage are in `stage_recipe.py`; how a recipe is run is in `pipeline.py`. Called by `pvc train`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, Field, ValidationError, model_validator

from pvc.errors import ConfigError, UsageError
from pvc.train.stage_recipe import DISTILL_DEFAULTS, Augment, Distill, FileMix, Lora, Stage, StrictModel, TaskMix

_Strict = StrictModel  # imported by `pvc.lab.ablation.plan`


class ModelRecipe(StrictModel):
    """Shape of a model. A recipe without one has that of the directory that it starts from."""

    vision: dict[str, Any]
    """Keyword arguments of `PVCVisionConfig`."""
    text: dict[str, Any]
    """Keyword arguments of the language model's configuration."""
    vocab_size: int = Field(512, ge=263)
    """Maximum number of tokens in the vocabulary."""
    spelling: Literal["merges", "letters"] = "merges"
    """How the tokenizer splits words that are not in its vocabulary; see `build_tokenizer`."""
    num_frames: int = Field(8, ge=1)
    """Default number of frames of a video."""
    live_frames: int | None = Field(None, ge=1)
    """Default number of the latest frames of a live video in the prompt.

    Train clips with this many frames (`video_frames`, `quiet_frames`).
    """
    max_new_tokens: int = Field(32, ge=1)
    """Default maximum number of generated tokens."""
    max_tiles: int = Field(1, ge=1)
    """Maximum number of tiles of a picture."""
    projector_hidden_act: str = "gelu"
    """Activation function of the compressor."""


class Recipe(StrictModel):
    """A whole training: the model to start from and its stages."""

    name: str = Field(pattern=r"^[a-z0-9_-]+$")
    """Name of the training."""
    seed: int = Field(0, ge=0)
    """Seed of new weights and of examples."""
    start: str | None = None
    """Model directory to start from, or "nano" for the bundled model; by default random weights."""
    model: ModelRecipe | None = None
    """Shape of the model; required without `start`."""
    stages: list[Stage] = Field(min_length=1)
    """Stages in the order in which they run."""

    @model_validator(mode="after")
    def _stage_names(self) -> Recipe:
        names = [stage.name for stage in self.stages]
        if len(set(names)) != len(names):
            raise ValueError("two stages have the same name")
        return self

    @property
    def shape(self) -> ModelRecipe:
        """Shape of the model; `model_init.resolve_recipe` adds it to recipes without one.

        Raises:
            ConfigError: the recipe has no shape.
        """
        if self.model is None:
            raise ConfigError("the recipe has no model: say its shape under 'model', or what to start from ('start')")
        return self.model


def written_from(text: str, recipe: Recipe) -> bool:
    """Return whether a stored recipe is equal to `recipe`, names aside.

    Args:
        text: JSON, maybe of an earlier version; keys that it does not have yet are at their defaults.
        recipe: to compare with.
    """
    try:
        stored = Recipe.model_validate({**json.loads(text), "name": recipe.name})
    except ValueError:
        return False
    return stored.model_dump() == recipe.model_dump()


Checked = TypeVar("Checked", bound=BaseModel)


def load_recipe(path: str | Path) -> Recipe:
    """Read and validate a training recipe; raises as `load_checked` does."""
    return load_checked(path, Recipe)


def load_checked(path: str | Path, model: type[Checked]) -> Checked:
    """Read and validate a YAML file.

    Args:
        path: of the file.
        model: pydantic model of its contents.

    Raises:
        UsageError: the file does not exist, or is not YAML.
        ConfigError: a key or a value is wrong; the message names its place in the file.
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
        return model.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the recipe"
        raise ConfigError(f"{path}: {where}: {first['msg']}") from error


__all__ = [
    "DISTILL_DEFAULTS",
    "Augment",
    "Distill",
    "FileMix",
    "Lora",
    "ModelRecipe",
    "Recipe",
    "Stage",
    "TaskMix",
    "load_checked",
    "load_recipe",
    "written_from",
]
