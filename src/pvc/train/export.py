"""Write model directories: of a finished run, and of the last checkpoint of a running or stopped run.

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
from pvc.train.distill.setup import is_visual, restore_student
from pvc.train.distill.visual import export_visual
from pvc.train.lora import Adapters
from pvc.train.model_init import get_initial_directory, get_untied_state, parameters_by_part, resolve_recipe
from pvc.train.recipe import Recipe, Stage, written_from
from pvc.train.stage_model import FINAL, build_stage_model, get_stage_seed, get_trained_module, load_previous_weights
from pvc.train.summary import write_card, write_summary
from pvc.train.trainer import EMA_FILE, checkpoint_step, complete

MAX_ATTEMPTS = 5  # a running training may delete the checkpoint that is being read


@dataclass(frozen=True)
class ExportedModel:
    """Result of an export.

    Attributes:
        target: the model directory.
        stage: name of the last stage with weights.
        step: number of its steps so far.
        is_ema: whether the weights are their exponential moving average.
    """

    target: Path
    stage: str
    step: int
    is_ema: bool

    def describe(self) -> str:
        """Return one line of text."""
        return f"stage {self.stage}, step {self.step:,}{', EMA weights' if self.is_ema else ''}"


@dataclass(frozen=True)
class _StageWeights:
    """Weights of the last stage that has any: of its model if the stage is finished, otherwise of what it trains."""

    stage: Stage
    step: int
    weights: dict[str, torch.Tensor]
    checkpoint: Path | None = None  # None if the stage is finished


def export_run(recipe: Recipe, processor: PVCProcessor, weights: dict[str, torch.Tensor], directory: Path) -> None:
    """Write the model of a finished run to `directory`/model, and the run's summary.

    Args:
        recipe: of the run.
        processor: of the run.
        weights: of the last stage, by the names of the model's state dict.
        directory: of the run.
    """
    target = directory / "model"
    model, _ = build_stage_model(recipe, recipe.stages[-1], processor, weights)
    _write_weights(recipe, model, target, torch.bfloat16)
    processor.save_pretrained(target)
    write_summary(recipe, directory)
    write_card(recipe, directory, target, _count_parameters(recipe, model, target))
    _write_history(target, _build_history(recipe, directory))


def export_checkpoint(
    recipe: Recipe, directory: str | Path, target: str | Path, dtype: torch.dtype | None = None
) -> ExportedModel:
    """Write the last checkpoint of a run as a model directory; the run may continue meanwhile.

    Args:
        recipe: of the run.
        directory: of the run; it is only read.
        target: directory to write; it must not exist or must be empty.
        dtype: of the weights; by default bfloat16. Modulations and timestep embedder are float32 in any case.

    Raises:
        UsageError: there is no run of this recipe, it has no checkpoint yet, or `target` exists.
        CheckpointError: the weights are sharded (FSDP, DeepSpeed).
    """
    recipe, directory, target = resolve_recipe(recipe), Path(directory), Path(target)
    _check_export(recipe, directory, target, dtype)
    disable_progress_bar()
    last = _load_last_weights(recipe, directory)
    stage = last.stage
    processor = PVCProcessor.from_pretrained(directory / "processor")
    processor.image_processor.image_steps = stage.most_steps
    model = _build_trained_model(recipe, directory, processor, last)
    recipe = recipe.model_copy(update={"stages": recipe.stages[: recipe.stages.index(stage) + 1]})
    exported = ExportedModel(target, stage.name, last.step, stage.ema is not None)
    part = target.with_name(f"{target.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    _write_weights(recipe, model, part, dtype or torch.bfloat16)
    processor.save_pretrained(part)
    write_card(recipe, directory, part, _count_parameters(recipe, model, part), f"Exported: {exported.describe()}")
    history = _build_history(recipe, directory)
    history["recipe"]["stages"][-1]["steps"] = last.step
    _write_history(part, {**history, "exported": {"stage": stage.name, "step": last.step, "ema": exported.is_ema}})
    if target.exists():
        target.rmdir()
    part.rename(target)
    return exported


def _check_export(recipe: Recipe, directory: Path, target: Path, dtype: torch.dtype | None) -> None:
    stamp = directory / "recipe.json"
    if not stamp.exists():
        raise UsageError(f"{directory} holds no run (it has no recipe.json); name the run's directory with --out")
    if not written_from(stamp.read_text(encoding="utf-8"), recipe):
        raise UsageError(f"{directory} holds a run of another recipe; pass the run's recipe and its options")
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UsageError(f"{target} exists already; choose another directory")
    if dtype is not None and is_visual(recipe):
        raise UsageError(f"weights keep the dtypes of {recipe.start} after token distillation; leave out --dtype")


def _load_last_weights(recipe: Recipe, directory: Path) -> _StageWeights:
    """Find the last stage with weights, and read them."""
    for _ in range(MAX_ATTEMPTS):
        for stage in reversed(recipe.stages):
            folder = directory / stage.name
            if (folder / FINAL).exists():
                done = json.loads((folder / "done.json").read_text(encoding="utf-8"))
                return _StageWeights(stage, done["steps"], load_file(folder / FINAL))
            checkpoint = next(iter(complete(folder)), None)
            if checkpoint is None:
                continue
            try:
                return _StageWeights(
                    stage, checkpoint_step(checkpoint), _load_checkpoint_weights(checkpoint), checkpoint
                )
            except (OSError, CheckpointError):
                if checkpoint.exists():
                    raise
                break  # it was deleted meanwhile: search again
        else:
            raise UsageError(f"{directory} has no checkpoint yet; wait for the first one (save_steps, save_minutes)")
    raise UsageError(f"{directory}: checkpoints are deleted before they can be read; raise save_steps")


def _load_checkpoint_weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    """Read what a stage trains; the EMA, if there is one, replaces the weights of the last step."""
    weights: dict[str, torch.Tensor] = {}
    for shard in find_shards(checkpoint):
        weights |= load_file(shard)
    if (checkpoint / EMA_FILE).exists():
        weights |= torch.load(checkpoint / EMA_FILE, map_location="cpu", weights_only=True)
    return weights


def _build_trained_model(recipe: Recipe, directory: Path, processor: PVCProcessor, last: _StageWeights) -> nn.Module:
    """Build the model of the last stage with weights; adapters are merged."""
    stage, weights = last.stage, last.weights
    if last.checkpoint is None:
        return build_stage_model(recipe, stage, processor, weights)[0]
    model, _ = build_stage_model(recipe, stage, processor, load_previous_weights(recipe, stage, directory))
    adapters = Adapters(stage, model, get_stage_seed(recipe, stage))
    try:
        if stage.kind == "distill":
            restore_student(model, weights, model)
        else:
            part = get_trained_module(stage, model)
            # An output layer that is the input embedding is stored once.
            tied = {"lm_head.weight"} if cast(Any, model).config.tie_word_embeddings else set()
            part.load_state_dict({**{key: value for key, value in part.state_dict().items() if key in tied}, **weights})
    except RuntimeError as error:
        text = " ".join(str(error).split())[:300]
        raise CheckpointError(f"{last.checkpoint} does not fit stage {stage.name}: {text}") from error
    adapters.merge()
    return model


def _write_weights(recipe: Recipe, model: nn.Module, target: Path, dtype: torch.dtype) -> None:
    """Write weights and configuration; modulations and timestep embedder stay float32.

    After token distillation alone, all tensors have the precision of the checkpoint that it started from.
    """
    if is_visual(recipe):
        export_visual(get_initial_directory(recipe), model.state_dict(), target)
        return
    float32_names = PVCForConditionalGeneration._keep_in_fp32_modules_strict
    state = {
        key: value if any(part in key for part in float32_names) else value.to(dtype)
        for key, value in get_untied_state(cast(Any, model)).items()
    }
    cast(Any, model).save_pretrained(target, state_dict=state)


def _count_parameters(recipe: Recipe, model: nn.Module, target: Path) -> dict[str, int]:
    """Count the parameters of a written model by part; `model` may lack the language model."""
    if not is_visual(recipe):
        return parameters_by_part(model)
    counts = Counter(dict.fromkeys(PARTS, 0))
    for tensor in CheckpointFiles(target).tensors():
        counts[part_of(tensor.name)] += tensor.count
    return dict(counts)


def _write_history(target: Path, history: dict[str, Any]) -> None:
    """Write training.json; a measured accuracy in an earlier file is retained."""
    path = target / "training.json"
    accuracy = json.loads(path.read_text(encoding="utf-8")).get("accuracy") if path.exists() else None
    history |= {"accuracy": accuracy} if accuracy else {}
    path.write_text(json.dumps(history, indent=1) + "\n", encoding="utf-8")


def _build_history(recipe: Recipe, directory: Path) -> dict[str, Any]:
    """Return the contents of training.json: the recipe, each stage with the contents of its done.json."""
    content = json.loads(recipe.model_dump_json())
    for stage in content["stages"]:
        done = directory / stage["name"] / "done.json"
        if done.exists():
            stage.update(json.loads(done.read_text(encoding="utf-8")))
    return {"recipe": content}


__all__ = ["ExportedModel", "export_checkpoint", "export_run"]
