"""Runs a recipe stage by stage on transformers' Trainer, with checkpoints and resume.

A directory holds everything: `<stage>/checkpoint-N`, `<stage>/final`, `curve.jsonl`, `curve.png` and, at the end,
`model`. Leaves out evaluation (`pvc.evaluate`). Called by `pvc train`.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback
from transformers.trainer_utils import get_last_checkpoint

import pvc.auto  # noqa: F401  # so that a saved processor can be loaded
from pvc.errors import PVCError, UsageError
from pvc.processing.processor import PVCProcessor
from pvc.synthetic import PATCH_CLASSES
from pvc.train.build import build_model, build_processor, check_recipe, grow, parameters_by_part
from pvc.train.curve import draw_curve
from pvc.train.data import ChatCollator, PatchCollator, SyntheticSamples
from pvc.train.patches import PatchReader
from pvc.train.recipe import Recipe, Stage

Report = Callable[[str], None]


class _Log(TrainerCallback):
    """Writes the curve as it grows, tells the time left, and stops at a loss that is not a number."""

    def __init__(self, stage: Stage, curve: Path, report: Report) -> None:
        self.stage, self.curve, self.report = stage, curve, report
        self.started = time.monotonic()
        self.first_step: int | None = None

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        if not logs or "loss" not in logs:
            return
        if not state.is_world_process_zero:
            return
        if not math.isfinite(logs["loss"]):
            raise PVCError(f"stage {self.stage.name}: the loss is {logs['loss']} at step {state.global_step}; stopped")
        if self.first_step is None:
            self.first_step, self.started = state.global_step, time.monotonic()
        done = state.global_step - self.first_step
        left = (time.monotonic() - self.started) / done * (self.stage.steps - state.global_step) if done else 0.0
        row = {"stage": self.stage.name, "step": state.global_step, "loss": logs["loss"], "lr": logs["learning_rate"]}
        with self.curve.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        self.report(
            f"{self.stage.name}: step {state.global_step}/{self.stage.steps}  loss {logs['loss']:.4f}  "
            f"{left / 60:.0f} min left"
        )


def run_recipe(recipe: Recipe, directory: str | Path, report: Report = print, threads: int = 1) -> Path:
    """Run (or go on with) a recipe in `directory` on `threads` cores; returns the directory of the finished model.

    Raises:
        UsageError: unknown tasks, or a directory that belongs to another recipe.
        PVCError: the loss stopped being a number.
    """
    directory = Path(directory)
    torch.set_num_threads(threads)
    state = PartialState(cpu=not torch.cuda.is_available())
    with state.main_process_first():  # under torchrun: the first process makes what the others then read
        _claim(recipe, directory)
        processor = _processor(recipe, directory / "processor")
    if not state.is_main_process:
        report = _silent
    weights: dict[str, torch.Tensor] = {}
    model: nn.Module | None = None
    for stage in recipe.stages:
        final = directory / stage.name / "final.safetensors"
        model, fresh = (
            grow(recipe, stage, processor, weights) if weights else (build_model(recipe, stage, processor), [])
        )
        if final.exists():
            report(f"{stage.name}: done before")
        else:
            parts = ", ".join(f"{part} {count:,}" for part, count in parameters_by_part(model).items())
            report(f"{stage.name}: {stage.steps} steps of {stage.batch_size}; parameters: {parts}")
            if fresh:
                report(f"{stage.name}: {len(fresh)} tensors start anew: {', '.join(fresh[:6])} ...")
            _run_stage(recipe, stage, model, processor, directory, report)
            if state.is_main_process:
                _save(model, final)
                draw_curve(directory / "curve.jsonl", directory / "curve.png")
            state.wait_for_everyone()
        weights = load_file(final)
    if state.is_main_process:
        _export(recipe, processor, weights, directory)
    state.wait_for_everyone()
    return directory / "model"


def _silent(line: str) -> None:
    """What processes other than the first report."""


def _save(model: nn.Module, path: Path) -> None:
    """Write a stage's weights whole or not at all; tied weights once."""
    state = {key: value.contiguous() for key, value in model.state_dict().items() if key != "lm_head.weight"}
    save_file(state, path.with_suffix(".part"))
    path.with_suffix(".part").rename(path)


def _processor(recipe: Recipe, directory: Path) -> PVCProcessor:
    """The run's processor, made once: a resumed run must have the same tokenizer, whatever became of the tasks."""
    if not directory.exists():
        staging = directory.with_name("processor.part")
        build_processor(recipe).save_pretrained(staging)
        staging.rename(directory)
    return PVCProcessor.from_pretrained(directory)


def _claim(recipe: Recipe, directory: Path) -> None:
    check_recipe(recipe)
    directory.mkdir(parents=True, exist_ok=True)
    stamp, text = directory / "recipe.json", recipe.model_dump_json(indent=2)
    if stamp.exists() and stamp.read_text(encoding="utf-8") != text:
        raise UsageError(f"{directory} holds a run of another recipe; choose another directory or remove it")
    stamp.write_text(text, encoding="utf-8")


def _run_stage(
    recipe: Recipe, stage: Stage, model: Any, processor: PVCProcessor, directory: Path, report: Report
) -> None:
    size = int(recipe.model.vision["image_size"])
    patches = stage.kind == "patches"
    trained = PatchReader(model.model.vision_tower, PATCH_CLASSES) if patches else model
    collator = PatchCollator(processor) if patches else ChatCollator(processor, stage.image_steps)
    output = directory / stage.name
    arguments = TrainingArguments(
        output_dir=str(output),
        max_steps=stage.steps,
        per_device_train_batch_size=_share(stage.batch_size),
        learning_rate=stage.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=stage.warmup_steps,
        weight_decay=stage.weight_decay,
        adam_beta2=0.98,
        max_grad_norm=stage.max_grad_norm,
        logging_steps=_log_every(stage),
        logging_nan_inf_filter=False,
        ddp_backend="gloo" if PartialState().num_processes > 1 and not torch.cuda.is_available() else None,
        save_steps=stage.save_steps,
        save_total_limit=2,
        seed=recipe.seed,
        data_seed=recipe.seed,
        report_to=[],
        use_cpu=not torch.cuda.is_available(),
        remove_unused_columns=False,
        label_names=["labels"],
        disable_tqdm=True,
        # Samples are independent already, and a resumed run must see the same ones.
        train_sampling_strategy="sequential",
    )
    number = recipe.stages.index(stage)
    trainer = Trainer(
        model=trained,
        args=arguments,
        train_dataset=SyntheticSamples(stage, seed=recipe.seed * 1000 + number, size=size),
        data_collator=collator,
        callbacks=[_Log(stage, directory / "curve.jsonl", report)],
    )
    trainer.remove_callback(PrinterCallback)
    last = get_last_checkpoint(str(output)) if output.is_dir() else None
    if last:
        report(f"{stage.name}: going on from {Path(last).name}")
    trainer.train(resume_from_checkpoint=last)


def _share(batch_size: int) -> int:
    """A process's part of a batch, so that a recipe means the same on any number of processes."""
    processes = PartialState().num_processes
    if batch_size % processes:
        raise UsageError(f"a batch of {batch_size} does not divide among {processes} processes")
    return batch_size // processes


def _log_every(stage: Stage) -> int:
    """Steps between log rows: about 20, and a divisor of `save_steps`, so that a loss that is no number is seen
    before anything is saved."""
    most = max(1, min(20, stage.steps // 20))
    return next(steps for steps in range(most, 0, -1) if stage.save_steps % steps == 0)


def _export(recipe: Recipe, processor: PVCProcessor, weights: dict[str, torch.Tensor], directory: Path) -> Path:
    """The last stage's model in bf16 (modulations stay float32), with processor, recipe and curve."""
    model, _ = grow(recipe, recipe.stages[-1], processor, weights)
    halved = {
        key: value if "modulation" in key else value.to(torch.bfloat16)
        for key, value in model.state_dict().items()
        if key != "lm_head.weight"  # tied to the input embedding
    }
    target = directory / "model"
    model.config.dtype = torch.bfloat16
    model.save_pretrained(target, state_dict=halved)
    processor.save_pretrained(target)
    (target / "training.json").write_text(
        json.dumps({"recipe": json.loads(recipe.model_dump_json())}, indent=2) + "\n", encoding="utf-8"
    )
    return target


__all__ = ["run_recipe"]
