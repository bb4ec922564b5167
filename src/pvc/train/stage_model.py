"""A stage's model: built in the shape of the stage, filled from the stage before it, and the part that is trained.

Called by `pipeline.py` and `export.py`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

from pvc.processing.processor import PVCProcessor
from pvc.train.data.tasks import provider_of
from pvc.train.distill.setup import build_visual, grow_visual, is_visual
from pvc.train.distill.visual import load_visual_weights
from pvc.train.model_init import build_model, grow, initial_directory, initial_weights
from pvc.train.patch_pretraining import PatchClassifier
from pvc.train.recipe import Recipe, Stage

FINAL = "final.safetensors"  # weights of a finished stage, in its directory


def first_weights(recipe: Recipe) -> dict[str, torch.Tensor]:
    """Read the weights that a recipe's first stage starts from; none where it starts from random ones."""
    if recipe.start is None:
        return {}
    return load_visual_weights(initial_directory(recipe)) if is_visual(recipe) else initial_weights(recipe)


def weights_before(recipe: Recipe, stage: Stage, directory: Path) -> dict[str, torch.Tensor]:
    """Read the weights that a stage of the run in `directory` starts from."""
    number = recipe.stages.index(stage)
    return load_file(directory / recipe.stages[number - 1].name / FINAL) if number else first_weights(recipe)


def stage_model(
    recipe: Recipe, stage: Stage, processor: PVCProcessor, weights: dict[str, torch.Tensor]
) -> tuple[nn.Module, list[str]]:
    """Build a stage's model from `weights`; return it and the names of new tensors.

    It has no language model if the recipe never runs it. The processor is made to fit.
    """
    if not weights:
        return empty_model(recipe, stage, processor), []
    return (grow_visual if is_visual(recipe) else grow)(recipe, stage, processor, weights)


def empty_model(recipe: Recipe, stage: Stage, processor: PVCProcessor) -> nn.Module:
    """Build a stage's model with random weights."""
    return (build_visual if is_visual(recipe) else build_model)(recipe, stage, processor)


def trained_module(stage: Stage, model: Any) -> nn.Module:
    """Return what a stage of kind patches or chat trains of a model."""
    if stage.kind != "patches":
        return model  # type: ignore[no-any-return]
    classes = max(provider_of(task).num_patch_classes for task in stage.tasks)
    return PatchClassifier(model.model.vision_tower, classes)


def stage_seed(recipe: Recipe, stage: Stage) -> int:
    """Return the seed of a stage's samples and of its new weights."""
    return recipe.seed * 1000 + recipe.stages.index(stage)


__all__ = ["FINAL", "empty_model", "first_weights", "stage_model", "stage_seed", "trained_module", "weights_before"]
