"""Writes model directories: of a finished run, and of the last checkpoint of a run that goes on or was stopped.

Called by `pipeline.py` at the end and by `pvc train --export`.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import load_file
from torch import nn
from transformers.utils.logging import disable_progress_bar

import pvc.auto  # noqa: F401  # so that a saved processor can be loaded
from pvc.checkpoint.files import PARTS, CheckpointFiles, find_shards, part_of
from pvc.errors import CheckpointError, UsageError
from pvc.model.modeling import PVCForConditionalGeneration
from pvc.processing.processor import PVCProcessor
from pvc.train.distill.setup import is_visual, restore
from pvc.train.distill.visual import export_visual
from pvc.train.lora import Adapters
from pvc.train.model_init import initial_directory, parameters_by_part, resolve_recipe, stored_state
from pvc.train.recipe import Recipe, Stage, written_from
from pvc.train.stage_model import FINAL, stage_model, stage_seed, trained_module, weights_before
from pvc.train.summary import write_card, write_summary
from pvc.train.trainer import EMA_FILE, checkpoint_step, complete

ATTEMPTS = 5  # a run that goes on deletes old checkpoints, maybe the one that is being read


@dataclass(frozen=True)
class Exported:
    """What was exported.

    Attributes:
        target: the model directory.
        stage, step: the last stage with weights, and its steps so far.
        is_ema: whether the weights are their exponential moving average.
    """

    target: Path
    stage: str
    step: int
    is_ema: bool

    def describe(self) -> str:
        """Return one line for people."""
        return f"stage {self.stage}, step {self.step:,}{', EMA weights' if self.is_ema else ''}"


@dataclass(frozen=True)
class _Found:
    """Weights of a run's last stage with any: of its model where it is finished, else of what it trains."""

    stage: Stage
    step: int
    weights: dict[str, torch.Tensor]
    checkpoint: Path | None = None  # None where the stage is finished


def export_run(recipe: Recipe, processor: PVCProcessor, weights: dict[str, torch.Tensor], directory: Path) -> None:
    """Write the model of a finished run to `directory`/model, and the run's summary."""
    target = directory / "model"
    model, _ = stage_model(recipe, recipe.stages[-1], processor, weights)
    _write_weights(recipe, model, target, torch.bfloat16)
    processor.save_pretrained(target)
    write_summary(recipe, directory)
    write_card(recipe, directory, target, _parameters(recipe, model, target))
    _write_history(target, _history(recipe, directory))


def export_checkpoint(
    recipe: Recipe, directory: str | Path, target: str | Path, dtype: torch.dtype | None = None
) -> Exported:
    """Write the last checkpoint of a run as a model directory; the run may go on meanwhile.

    Args:
        recipe: of the run.
        directory: of the run; nothing in it is changed.
        target: directory to write; it must not exist, or be empty.
        dtype: of the weights; by default bfloat16. Modulations and timestep embedder are float32 in any case.

    Raises:
        UsageError: no run of this recipe, no checkpoint yet, or `target` exists.
        CheckpointError: weights that are sharded (FSDP, DeepSpeed).
    """
    recipe, directory, target = resolve_recipe(recipe), Path(directory), Path(target)
    _check(recipe, directory, target, dtype)
    disable_progress_bar()
    found = _last_weights(recipe, directory)
    stage = found.stage
    processor = PVCProcessor.from_pretrained(directory / "processor")
    processor.image_processor.image_steps = stage.most_steps
    model = _built(recipe, directory, processor, found)
    recipe = recipe.model_copy(update={"stages": recipe.stages[: recipe.stages.index(stage) + 1]})
    exported = Exported(target, stage.name, found.step, stage.ema is not None)
    part = target.with_name(f"{target.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    _write_weights(recipe, model, part, dtype or torch.bfloat16)
    processor.save_pretrained(part)
    write_card(recipe, directory, part, _parameters(recipe, model, part), f"Exported: {exported.describe()}")
    history = _history(recipe, directory)
    history["recipe"]["stages"][-1]["steps"] = found.step
    _write_history(part, {**history, "exported": {"stage": stage.name, "step": found.step, "ema": exported.is_ema}})
    if target.exists():
        target.rmdir()
    part.rename(target)
    return exported


def _check(recipe: Recipe, directory: Path, target: Path, dtype: torch.dtype | None) -> None:
    stamp = directory / "recipe.json"
    if not stamp.exists():
        raise UsageError(f"{directory} holds no run (it has no recipe.json); name the run's directory with --out")
    if not written_from(stamp.read_text(encoding="utf-8"), recipe):
        raise UsageError(f"{directory} holds a run of another recipe; pass the run's recipe and its options")
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UsageError(f"{target} exists already; choose another directory")
    if dtype is not None and is_visual(recipe):
        raise UsageError(f"weights keep the dtypes of {recipe.start} after token distillation; leave out --dtype")


def _last_weights(recipe: Recipe, directory: Path) -> _Found:
    """Find the last stage with weights, and read them."""
    for _ in range(ATTEMPTS):
        for stage in reversed(recipe.stages):
            folder = directory / stage.name
            if (folder / FINAL).exists():
                done = json.loads((folder / "done.json").read_text(encoding="utf-8"))
                return _Found(stage, done["steps"], load_file(folder / FINAL))
            checkpoint = next(iter(complete(folder)), None)
            if checkpoint is None:
                continue
            try:
                return _Found(stage, checkpoint_step(checkpoint), _checkpoint_weights(checkpoint), checkpoint)
            except (OSError, CheckpointError):
                if checkpoint.exists():
                    raise
                break  # it was deleted meanwhile: look again
        else:
            raise UsageError(f"{directory} has no checkpoint yet; wait for the first one (save_steps, save_minutes)")
    raise UsageError(f"{directory}: checkpoints are deleted before they can be read; raise save_steps")


def _checkpoint_weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    """Read what a stage trains, with the EMA in place of the last step's weights where there is one."""
    weights: dict[str, torch.Tensor] = {}
    for shard in find_shards(checkpoint):
        weights |= load_file(shard)
    if (checkpoint / EMA_FILE).exists():
        weights |= torch.load(checkpoint / EMA_FILE, map_location="cpu", weights_only=True)
    return weights


def _built(recipe: Recipe, directory: Path, processor: PVCProcessor, found: _Found) -> nn.Module:
    """Build the model of the last stage with weights; adapters are merged."""
    stage, weights = found.stage, found.weights
    if found.checkpoint is None:
        return stage_model(recipe, stage, processor, weights)[0]
    model, _ = stage_model(recipe, stage, processor, weights_before(recipe, stage, directory))
    adapters = Adapters(stage, model, stage_seed(recipe, stage))
    try:
        if stage.kind == "distill":
            restore(model, weights, model)
        else:
            part = trained_module(stage, model)
            # An output layer that is the input embedding is stored once.
            tied = {"lm_head.weight"} if cast(Any, model).config.tie_word_embeddings else set()
            part.load_state_dict({**{key: value for key, value in part.state_dict().items() if key in tied}, **weights})
    except RuntimeError as error:
        text = " ".join(str(error).split())[:300]
        raise CheckpointError(f"{found.checkpoint} does not fit stage {stage.name}: {text}") from error
    adapters.merge()
    return model


def _write_weights(recipe: Recipe, model: nn.Module, target: Path, dtype: torch.dtype) -> None:
    """Write weights and configuration; modulations and timestep embedder stay float32.

    After token distillation alone, all tensors have the precision of the checkpoint that it started from.
    """
    if is_visual(recipe):
        export_visual(initial_directory(recipe), model.state_dict(), target)
        return
    wide = PVCForConditionalGeneration._keep_in_fp32_modules_strict
    stored = {
        key: value if any(part in key for part in wide) else value.to(dtype)
        for key, value in stored_state(cast(Any, model)).items()
    }
    cast(Any, model).save_pretrained(target, state_dict=stored)


def _parameters(recipe: Recipe, model: nn.Module, target: Path) -> dict[str, int]:
    """Count the parameters of a written model by part; the language model may not be part of `model`."""
    if not is_visual(recipe):
        return parameters_by_part(model)
    stored = Counter(dict.fromkeys(PARTS, 0))
    for tensor in CheckpointFiles(target).tensors():
        stored[part_of(tensor.name)] += tensor.count
    return dict(stored)


def _write_history(target: Path, history: dict[str, Any]) -> None:
    path = target / "training.json"
    measured = json.loads(path.read_text(encoding="utf-8")).get("accuracy") if path.exists() else None
    history |= {"accuracy": measured} if measured else {}
    path.write_text(json.dumps(history, indent=1) + "\n", encoding="utf-8")


def _history(recipe: Recipe, directory: Path) -> dict[str, Any]:
    """Return what a model's training.json says: its recipe with the steps that were made."""
    written = json.loads(recipe.model_dump_json())
    for stage in written["stages"]:
        done = directory / stage["name"] / "done.json"
        if done.exists():
            stage.update(json.loads(done.read_text(encoding="utf-8")))
    return {"recipe": written}


__all__ = ["Exported", "export_checkpoint", "export_run"]
