"""transformers' Trainer with weighted losses, learning rates by module, an EMA of the weights and atomic checkpoints.

Training stops before a step with a loss that is not finite. Called by `run_stage.py`, which sets up a stage.

B rows, Q tokens of a row, P positions with a loss.
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
from pvc.train.augment import augment_pixels
from pvc.train.data.collate import IGNORED
from pvc.train.interrupt import outlive_signals
from pvc.train.optimizer import build_muon
from pvc.train.recipe import Stage
from pvc.train.stage_log import Report, StageLog

MAX_CHECKPOINTS = 2  # per stage
STAGING = "saving"
EMA_FILE = "average.pt"  # EMA of the weights, in a checkpoint
NO_DECAY_NAMES = ("modulation", "timestep_embedding")


class StageTrainer(Trainer):
    """Trainer for one stage; `run_stage.py` sets its attributes.

    Attributes:
        stage: what is trained, and how.
        seed: of the stage.
        stage_log: counts tokens.
        describe_batch: returns a description of a batch by its number, for error messages.
        ema: moving average of the weights, if the stage has one.
        is_staging: whether a checkpoint is being written, to the directory `STAGING`.
    """

    stage: Stage
    seed: int
    stage_log: StageLog
    describe_batch: Callable[[int], str]
    optimizer: Any
    ema: EMA | None = None
    is_staging = False

    # Loss

    def compute_loss(self, model: nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Compute the loss of a batch as Trainer does, weighted as the stage requires.

        Args:
            model: possibly wrapped for several processes.
            inputs: a batch.
            *args: of Trainer.
            **kwargs: of Trainer.

        Raises:
            PVCError: the loss is not finite.
        """
        self.stage_log.counts.add(inputs)
        if "input_ids" in inputs and self.stage.kind == "chat":
            result = self._compute_answer_loss(model, dict(inputs), kwargs.get("num_items_in_batch"))
        else:
            result = super().compute_loss(model, inputs, *args, **kwargs)
        loss = result[0] if isinstance(result, tuple) else result
        if not math.isfinite(loss.item()):
            step = self.state.global_step
            raise PVCError(
                f"stage {self.stage.name}: the loss is {loss.item()} at step {step + 1}; stopped before it. "
                f"Its batch: {self.describe_batch(step)}"
            )
        return result

    def _compute_answer_loss(
        self, model: nn.Module, inputs: dict[str, Any], total: torch.Tensor | None
    ) -> torch.Tensor:
        """Return the weighted mean loss of the answer tokens, over all processes and parts of the batch."""
        positions, targets, weights = answer_positions(inputs.pop("labels"), inputs.pop("loss_weights", None))
        logits = model(**inputs, use_cache=False, logits_to_keep=positions).logits.float()
        losses = functional.cross_entropy(logits.transpose(1, 2), targets, ignore_index=IGNORED, reduction="none")
        if total is None:
            return (losses * weights).sum() / weights.sum().clamp(min=1e-9)
        # Gradients are averaged over the processes, but `total` is a sum over them.
        return (losses * weights).sum() / total * self.accelerator.num_processes

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> Any:
        """Return the batches of one step and the divisor of their loss: number of answer tokens, or sum of weights."""
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
        # The seed depends on step and process, not on a generator's state, so that a resumed run has the same pixels.
        seed = (self.seed * 1_000_003 + self.state.global_step) * 64 + PartialState().process_index
        for number, key in enumerate(("pixel_values", "pixel_values_videos")):
            if key in inputs:
                inputs[key] = augment_pixels(inputs[key], self.stage.augment, seed * 2 + number)
        return inputs

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Return Trainer's loader, whose workers ignore the first signal (`outlive_signals`)."""
        loader = super().get_train_dataloader()
        inner = getattr(loader, "base_dataloader", loader)  # accelerate's wrapper starts the workers of this loader
        inner.worker_init_fn = partial(outlive_signals, before=inner.worker_init_fn)
        return loader

    # Optimizer

    def get_decay_parameter_names(self, model: nn.Module) -> list[str]:
        """Return the names of all parameters but biases, norms, and those that condition on timesteps.

        Decay of the latter would mix the blocks of the closed form.
        """
        return [
            name
            for name in super().get_decay_parameter_names(model)
            if not any(part in name for part in NO_DECAY_NAMES)
        ]

    def create_optimizer(self, *args: Any, **kwargs: Any) -> torch.optim.Optimizer:
        """Create the stage's optimizer; its groups are split by the stage's `rates`."""
        if self.stage.optimizer == "muon" and self.optimizer is None:
            options = dict(self.get_optimizer_cls_and_kwargs(self.args, self.model)[1])
            decayed = self.get_decay_parameter_names(self.model)
            self.optimizer = build_muon(self.model, decayed, options.pop("lr"), self.args.weight_decay, options)
        optimizer = super().create_optimizer(*args, **kwargs)
        if not self.stage.rates:
            return optimizer
        factors = {id(p): get_lr_factor(name, self.stage.rates) for name, p in self.model.named_parameters()}
        groups = []
        for group in optimizer.param_groups:
            by_factor: dict[float, list[Any]] = {}
            for parameter in group["params"]:
                by_factor.setdefault(factors.get(id(parameter), 1.0), []).append(parameter)
            for factor, parameters in by_factor.items():
                groups.append({**group, "params": parameters, "lr": group["lr"] * factor, "factor": factor})
        optimizer.param_groups[:] = groups
        return optimizer

    # Checkpoints

    def _get_output_dir(self, trial: Any) -> str:
        directory = super()._get_output_dir(trial)
        return os.path.join(directory, STAGING) if self.is_staging else directory

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """Write a checkpoint to the staging directory, sync it, rename it, and then remove the oldest ones."""
        output = Path(self.args.output_dir)
        name = f"checkpoint-{self.state.global_step}"
        self.is_staging = True
        try:
            super()._save_checkpoint(model, trial)
        finally:
            self.is_staging = False
        staged_path = output / STAGING / name
        state = PartialState()
        if self.ema is not None and state.is_main_process:
            self.ema.save(staged_path)
        state.wait_for_everyone()
        if state.is_main_process:
            publish(staged_path, output / name)
            for old in complete(output)[MAX_CHECKPOINTS:]:
                remove(old, output / STAGING)
        state.wait_for_everyone()


def answer_positions(
    labels: torch.Tensor, weights: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Find the positions at which any row of a batch predicts an answer token.

    The output layer skips all other positions. Visual tokens and questions take up most of a row, and the logits of a
    large vocabulary take up most of a step's memory.

    Args:
        labels: `(B, Q)` int64, `IGNORED` for tokens without a loss.
        weights: `(B, Q)` float32; by default 1 for every answer token.

    Returns:
        Positions `(P,)` int64, the tokens that follow them `(B, P)` int64, and their weights `(B, P)` float32.
    """
    targets = labels[:, 1:]
    positions = (targets != IGNORED).any(0).nonzero()[:, 0]
    targets = targets[:, positions]
    return positions, targets, (targets != IGNORED).float() if weights is None else weights[:, 1:][:, positions]


class EMA(TrainerCallback):
    """Exponential moving average of the trained weights, which is the result of a stage with `ema`.

    Args:
        decay: factor per step, less than 1.
        model: whose trainable parameters are averaged.
    """

    def __init__(self, decay: float, model: nn.Module) -> None:
        self.decay = decay
        self.model = model
        self.weights = {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}

    @torch.no_grad()
    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Update the average."""
        # Bias correction for the first steps: the average starts from weights that are not trained.
        decay = min(self.decay, (1 + state.global_step) / (10 + state.global_step))
        for name, parameter in self.model.named_parameters():
            if name in self.weights:
                self.weights[name].lerp_(parameter.detach(), 1 - decay)

    def save(self, directory: Path) -> None:
        """Write the average into a checkpoint."""
        torch.save(self.weights, directory / EMA_FILE)

    def load(self, directory: Path) -> None:
        """Read the average from a checkpoint."""
        for name, value in torch.load(directory / EMA_FILE, weights_only=True).items():
            self.weights[name].copy_(value)

    @torch.no_grad()
    def copy_to_model(self) -> None:
        """Replace the model's weights by the average."""
        for name, parameter in self.model.named_parameters():
            if name in self.weights:
                parameter.copy_(self.weights[name])


def get_lr_factor(name: str, rates: dict[str, float]) -> float:
    """Return the factor of a parameter's learning rate.

    Args:
        name: of the parameter.
        rates: factors by substrings of names; the last that matches applies. Without a match the factor is 1.
    """
    factors = [factor for part, factor in rates.items() if part in name]
    return factors[-1] if factors else 1.0


def publish(staged: Path, target: Path) -> None:
    """Sync a directory's files to the disk, then rename it, so that a reader finds all of it or nothing.

    Args:
        staged: directory to rename.
        target: its new path; a directory there is removed.
    """
    for path in [*staged.rglob("*"), staged]:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    if target.exists():  # of a run that was killed at a later step
        remove(target, staged.parent)
    staged.rename(target)
    handle = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def remove(directory: Path, staging: Path) -> None:
    """Rename a directory and then delete it, so that a reader never finds a part of it.

    Args:
        directory: to delete.
        staging: directory on the same disk, for the time of the deletion.
    """
    renamed = staging / f"old-{directory.name}"
    shutil.rmtree(renamed, ignore_errors=True)
    directory.rename(renamed)
    shutil.rmtree(renamed)


def checkpoint_step(checkpoint: Path) -> int:
    """Return the step after which a checkpoint was written."""
    return int(checkpoint.name.rpartition("-")[2])


def complete(output: Path, report: Report = lambda line: None) -> list[Path]:
    """List the complete checkpoints of a stage, the newest first.

    Args:
        output: directory of the stage.
        report: gets a line for every incomplete checkpoint.
    """
    candidates = sorted(output.glob("checkpoint-*"), key=checkpoint_step, reverse=True)
    checkpoints = []
    for path in candidates:
        try:
            # Trainer writes this file last.
            json.loads((path / "trainer_state.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            report(f"{path.parent.name}: {path.name} is incomplete and not used")
            continue
        checkpoints.append(path)
    return checkpoints


__all__ = [
    "EMA",
    "EMA_FILE",
    "STAGING",
    "StageTrainer",
    "answer_positions",
    "checkpoint_step",
    "complete",
    "get_lr_factor",
    "publish",
    "remove",
]
