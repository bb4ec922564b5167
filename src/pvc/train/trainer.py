"""transformers' Trainer with what a stage adds: losses weighted by sample, rates by module, an average of the weights,
checkpoints that are whole or not there, and a stop before a step that would spoil the weights.

Leaves out how a stage is set up (`run_stage.py`).
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader
from transformers import Trainer, TrainerCallback

from pvc.errors import PVCError
from pvc.train.augment import augmented
from pvc.train.data.collate import IGNORED
from pvc.train.interrupt import outlive_signals
from pvc.train.optimizer import build_muon
from pvc.train.recipe import Stage
from pvc.train.stage_log import Report, StageLog

KEPT = 2  # checkpoints of a stage
STAGING = "saving"
EMA_FILE = "average.pt"  # of a checkpoint, the EMA of its weights
UNDECAYED = ("modulation", "timestep_embedding")


class StageTrainer(Trainer):
    """Trainer for one stage."""

    stage: Stage
    seed: int
    log_of: StageLog
    named: Callable[[int], str]
    optimizer: Any
    average: EMA | None = None
    staged = False

    # Loss

    def compute_loss(self, model: nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        self.log_of.counts.add(inputs)
        if "input_ids" in inputs and self.stage.kind == "chat":
            result = self._of_answers(model, dict(inputs), kwargs.get("num_items_in_batch"))
        else:
            result = super().compute_loss(model, inputs, *args, **kwargs)
        loss = result[0] if isinstance(result, tuple) else result
        if not math.isfinite(loss.item()):
            step = self.state.global_step
            raise PVCError(
                f"stage {self.stage.name}: the loss is {loss.item()} at step {step + 1}; stopped before it. "
                f"Its batch: {self.named(step)}"
            )
        return result

    def _of_answers(self, model: nn.Module, inputs: dict[str, Any], total: torch.Tensor | None) -> torch.Tensor:
        """Mean of the losses of `(B, Q)` tokens by their weights, over all processes and parts of the batch."""
        places, targets, weights = answer_positions(inputs.pop("labels"), inputs.pop("loss_weights", None))
        logits = model(**inputs, use_cache=False, logits_to_keep=places).logits.float()
        losses = functional.cross_entropy(logits.transpose(1, 2), targets, ignore_index=IGNORED, reduction="none")
        if total is None:
            return (losses * weights).sum() / weights.sum().clamp(min=1e-9)
        # Gradients are averaged over the processes, but the total is of all of them.
        return (losses * weights).sum() / total * self.accelerator.num_processes

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> Any:
        """Batches of one step and what their loss is divided by: learned tokens, or their weights."""
        batches, total = super().get_batch_samples(*args, **kwargs)
        if batches and "loss_weights" in batches[0]:
            device = self.args.device
            total = torch.stack([batch["loss_weights"][:, 1:].sum().to(device) for batch in batches]).sum()
            if self.args.world_size > 1:
                total = self.accelerator.gather(total).sum()
        return batches, total

    def _prepare_inputs(self, inputs: dict[str, Any]) -> dict[str, Any]:
        inputs = super()._prepare_inputs(inputs)
        if self.stage.augment is None or not self.model.training:
            return inputs
        # The step and the process, not the state of a generator: a resumed run must see the same.
        seed = (self.seed * 1_000_003 + self.state.global_step) * 64 + PartialState().process_index
        for number, key in enumerate(("pixel_values", "pixel_values_videos")):
            if key in inputs:
                inputs[key] = augmented(inputs[key], self.stage.augment, seed * 2 + number)
        return inputs

    def get_train_dataloader(self) -> DataLoader[Any]:
        loader = super().get_train_dataloader()
        inner = getattr(loader, "base_dataloader", loader)  # accelerate's wrapper starts this one's workers
        inner.worker_init_fn = partial(outlive_signals, before=inner.worker_init_fn)
        return loader

    # Rates

    def get_decay_parameter_names(self, model: nn.Module) -> list[str]:
        """All but biases, norms, and what conditions on timesteps: decay would let the closed form's blocks leak."""
        return [
            name for name in super().get_decay_parameter_names(model) if not any(part in name for part in UNDECAYED)
        ]

    def create_optimizer(self, *args: Any, **kwargs: Any) -> torch.optim.Optimizer:
        """Create the stage's optimizer, its groups parted by the stage's `rates`."""
        if self.stage.optimizer == "muon" and self.optimizer is None:
            options = dict(self.get_optimizer_cls_and_kwargs(self.args, self.model)[1])
            decayed = self.get_decay_parameter_names(self.model)
            self.optimizer = build_muon(self.model, decayed, options.pop("lr"), self.args.weight_decay, options)
        optimizer = super().create_optimizer(*args, **kwargs)
        if not self.stage.rates:
            return optimizer
        factors = {id(p): schedule_factor(name, self.stage.rates) for name, p in self.model.named_parameters()}
        groups = []
        for group in optimizer.param_groups:
            parted: dict[float, list[Any]] = {}
            for parameter in group["params"]:
                parted.setdefault(factors.get(id(parameter), 1.0), []).append(parameter)
            for factor, parameters in parted.items():
                groups.append({**group, "params": parameters, "lr": group["lr"] * factor, "factor": factor})
        optimizer.param_groups[:] = groups
        return optimizer

    # Checkpoints

    def _get_output_dir(self, trial: Any) -> str:
        directory = super()._get_output_dir(trial)
        return os.path.join(directory, STAGING) if self.staged else directory

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """Write a checkpoint beside its place, sync it, and only then put it there; older ones go after that."""
        output = Path(self.args.output_dir)
        name = f"checkpoint-{self.state.global_step}"
        self.staged = True
        try:
            super()._save_checkpoint(model, trial)
        finally:
            self.staged = False
        made = output / STAGING / name
        state = PartialState()
        if self.average is not None and state.is_main_process:
            self.average.save(made)
        state.wait_for_everyone()
        if state.is_main_process:
            publish(made, output / name)
            for old in complete(output)[KEPT:]:
                remove(old, output / STAGING)
        state.wait_for_everyone()


def answer_positions(
    labels: torch.Tensor, weights: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Places of rows `(P,)` after which any of them has a token to learn, those tokens and their weights `(B, P)`.

    The output layer then skips all the others: visual tokens and questions are most of a row, and the logits of a large
    vocabulary are most of a step's memory.
    """
    targets = labels[:, 1:]
    places = (targets != IGNORED).any(0).nonzero()[:, 0]
    targets = targets[:, places]
    return places, targets, (targets != IGNORED).float() if weights is None else weights[:, 1:][:, places]


class EMA(TrainerCallback):
    """A running average of the trained weights, which is what the stage leaves (`ema`)."""

    def __init__(self, decay: float, model: nn.Module) -> None:
        self.decay = decay
        self.model = model
        self.weights = {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}

    @torch.no_grad()
    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        # Young averages forget faster: what they start from is no weight that was trained.
        decay = min(self.decay, (1 + state.global_step) / (10 + state.global_step))
        for name, parameter in self.model.named_parameters():
            if name in self.weights:
                self.weights[name].lerp_(parameter.detach(), 1 - decay)

    def save(self, directory: Path) -> None:
        """Beside the other parts of a checkpoint."""
        torch.save(self.weights, directory / EMA_FILE)

    def load(self, directory: Path) -> None:
        for name, value in torch.load(directory / EMA_FILE, weights_only=True).items():
            self.weights[name].copy_(value)

    @torch.no_grad()
    def put(self) -> None:
        """Into the model."""
        for name, parameter in self.model.named_parameters():
            if name in self.weights:
                parameter.copy_(self.weights[name])


def schedule_factor(name: str, rates: dict[str, float]) -> float:
    """Factor of a parameter's learning rate: the last of `rates` that is a part of its name, else 1."""
    found = [factor for part, factor in rates.items() if part in name]
    return found[-1] if found else 1.0


def publish(made: Path, place: Path) -> None:
    """Sync a directory's files to the disk, then rename it: a reader finds all of it or nothing."""
    for path in [*made.rglob("*"), made]:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    if place.exists():  # of a run that got further before it was killed
        remove(place, made.parent)
    made.rename(place)
    handle = os.open(place.parent, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def remove(directory: Path, staging: Path) -> None:
    """Take a directory away under another name first: half of it must not be found under its own."""
    gone = staging / f"old-{directory.name}"
    shutil.rmtree(gone, ignore_errors=True)
    directory.rename(gone)
    shutil.rmtree(gone)


def checkpoint_step(checkpoint: Path) -> int:
    """Return the step after which a checkpoint was written."""
    return int(checkpoint.name.rpartition("-")[2])


def complete(output: Path, report: Report = lambda line: None) -> list[Path]:
    """Checkpoints that were written to their end, the newest first."""
    found = sorted(output.glob("checkpoint-*"), key=checkpoint_step, reverse=True)
    good = []
    for path in found:
        try:
            # Trainer writes this file last.
            json.loads((path / "trainer_state.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            report(f"{path.parent.name}: {path.name} is incomplete and not used")
            continue
        good.append(path)
    return good


__all__ = [
    "EMA",
    "EMA_FILE",
    "STAGING",
    "StageTrainer",
    "answer_positions",
    "checkpoint_step",
    "complete",
    "publish",
    "remove",
    "schedule_factor",
]
