"""Build the model of a stage, load the weights of the stage before it, and select what is trained.

Called by `pipeline.py` and `export.py`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

from pvc.processing.processor import PVCProcessor
from pvc.train.data.tasks import get_provider
from pvc.train.distill.setup import build_visual, grow_visual, is_visual
from pvc.train.distill.visual import load_visual_weights
from pvc.train.model_init import build_model, get_initial_directory, grow, initial_weights
from pvc.train.patch_pretraining import PatchClassifier
from pvc.train.recipe import Recipe, Stage

FINAL = "final.safetensors"  # in the directory of a finished stage: its weights


def load_first_weights(recipe: Recipe) -> dict[str, torch.Tensor]:
    """Load the weights that a recipe's first stage starts from; none if it starts from random weights."""
    if recipe.start is None:
        return {}
    return load_visual_weights(get_initial_directory(recipe)) if is_visual(recipe) else initial_weights(recipe)


def load_previous_weights(recipe: Recipe, stage: Stage, directory: Path) -> dict[str, torch.Tensor]:
    """Load the weights that a stage starts from.

    Args:
        recipe: of the run.
        stage: of the recipe.
        directory: of the run.
    """
    number = recipe.stages.index(stage)
    return load_file(directory / recipe.stages[number - 1].name / FINAL) if number else load_first_weights(recipe)


def build_stage_model(
    recipe: Recipe, stage: Stage, processor: PVCProcessor, weights: dict[str, torch.Tensor]
) -> tuple[nn.Module, list[str]]:
    """Build a stage's model; it has no language model if the recipe never runs it.

    Args:
        recipe: with the model's shape.
        stage: of the recipe.
        processor: its `tokens_per_frame` is set to that of the model.
        weights: to start from; if there are none, they are random.

    Returns:
        The model and the names of tensors with new values (none if all are random).
    """
    if not weights:
        return build_random_model(recipe, stage, processor), []
    return (grow_visual if is_visual(recipe) else grow)(recipe, stage, processor, weights)


def build_random_model(recipe: Recipe, stage: Stage, processor: PVCProcessor) -> nn.Module:
    """Build a stage's model with random weights; the arguments are those of `build_stage_model`."""
    return (build_visual if is_visual(recipe) else build_model)(recipe, stage, processor)


def get_trained_module(stage: Stage, model: Any) -> nn.Module:
    """Return the module that a stage trains: the model, or its tower with a classifier in a stage of kind patches.

    Args:
        stage: of kind patches or chat.
        model: of the stage.
    """
    if stage.kind != "patches":
        return model  # type: ignore[no-any-return]
    classes = max(get_provider(task).num_patch_classes for task in stage.tasks)
    return PatchClassifier(model.model.vision_tower, classes)


def get_stage_seed(recipe: Recipe, stage: Stage) -> int:
    """Return the seed of a stage's examples and new weights."""
    return recipe.seed * 1000 + recipe.stages.index(stage)


__all__ = [
    "FINAL",
    "build_random_model",
    "build_stage_model",
    "get_stage_seed",
    "get_trained_module",
    "load_first_weights",
    "load_previous_weights",
]
