"""One stage of training on transformers' Trainer: optimiser, log, checkpoints, resume, and measuring in between.

Leaves out what comes before and after a stage (`run.py`).
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import broadcast
from torch import nn
from transformers import PreTrainedModel, Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from pvc.errors import PVCError, UsageError
from pvc.train.augment import augmented
from pvc.train.recipe import Stage

Report = Callable[[str], None]
Progress = Callable[[str, float, str], None]
# Measures the model as it is: rows for the curve, each with "task" and "accuracy".
Measure = Callable[[], list[dict[str, Any]]]


@dataclass(frozen=True)
class Fit:
    """How a stage is run: its seed, where it writes, and what it tells.

    Attributes:
        output: directory of the checkpoints.
        curve: file of JSON lines that the log and the measurements are appended to.
        measure: what is called every `stage.evaluate_every` steps.
        workers: processes that draw samples beside the training; 0 draws them in it.
        minutes: how long to train, whatever number of steps that is; the learning rate follows the clock.
        progress: told (stage, part done from 0 to 1, line) in place of `report` where it can show a bar.
    """

    seed: int
    output: Path
    curve: Path
    report: Report
    measure: Measure | None = None
    workers: int = 0
    minutes: float | None = None
    progress: Progress | None = None


class StageLog(TrainerCallback):
    """Writes the curve as it grows, tells the time left, and measures in between."""

    def __init__(self, stage: Stage, fit: Fit, clock: Clock | None = None) -> None:
        self.stage, self.fit, self.clock = stage, fit, clock
        self.started = time.monotonic()
        self.first_step = 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        # After a resume, the steps before it took none of this process's time.
        self.first_step, self.started = state.global_step, time.monotonic()

    def _left(self, step: int) -> float:
        """Minutes that are left."""
        if self.clock is not None:
            return max(0.0, self.clock.seconds - self.clock.passed) / 60
        passed = (time.monotonic() - self.started) / 60
        done = step - self.first_step
        return passed / done * (self.stage.steps - step) if done else 0.0

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        if not logs or "loss" not in logs or not state.is_world_process_zero:
            return
        left = self._left(state.global_step)
        # Trainer logs its own schedule, which a clock overrules.
        rate = logs["learning_rate"] if self.clock is None else self.clock.rate
        self._write({"step": state.global_step, "loss": logs["loss"], "lr": rate})
        of = "" if self.fit.minutes is not None else f"/{self.stage.steps}"
        line = f"{self.stage.name}: step {state.global_step}{of}  loss {logs['loss']:.4f}  {left:.0f} min left"
        if self.fit.progress is None:
            self.fit.report(line)
            return
        done = state.global_step / self.stage.steps if self.fit.minutes is None else 1 - left / self.fit.minutes
        self.fit.progress(self.stage.name, done, line)

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        # A finite loss can have a gradient that is not; clipping by an infinite norm makes it NaN.
        sums = [parameter.grad.sum() for parameter in model.parameters() if parameter.grad is not None]
        if sums and not math.isfinite(torch.stack(sums).sum().item()):
            step = state.global_step + 1
            raise PVCError(f"stage {self.stage.name}: the gradient is no number at step {step}; stopped before it")

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        every = self.stage.evaluate_every
        if every is None or self.fit.measure is None or state.global_step % every or not state.is_world_process_zero:
            return
        rows = self.fit.measure()
        for row in rows:
            self._write({"step": state.global_step, **row})
        told = ", ".join(f"{row['task']} {row['accuracy']:.1%}" for row in rows)
        self.fit.report(f"{self.stage.name}: step {state.global_step}  held-out: {told}")

    def _write(self, row: dict[str, Any]) -> None:
        with self.fit.curve.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"stage": self.stage.name, **row}) + "\n")


class Clock(TrainerCallback):
    """Trains for a time: warm-up over its first twentieth, then a cosine to zero, then the end.

    For machines that are lent by the minute. What comes out depends on their speed, so such a run cannot be repeated
    to the bit; one that is called again has the minutes that were left at its last checkpoint. All processes follow
    the first one's clock: with clocks of their own their weights would drift apart, and one that stops a step early
    leaves the others waiting.

    `spent` is the file that keeps the seconds trained, written with every checkpoint.
    """

    def __init__(self, minutes: float, learning_rate: float, spent: Path) -> None:
        self.seconds, self.learning_rate, self.spent = 60 * minutes, learning_rate, spent
        self.before = 0.0  # seconds that earlier processes trained for
        self.started: float | None = None
        self.rate = 0.0

    def go_on(self) -> None:
        """Take up where the last checkpoint was written."""
        if self.spent.exists():
            self.before = float(json.loads(self.spent.read_text(encoding="utf-8"))["seconds"])

    @property
    def passed(self) -> float:
        """Seconds that were trained, those of earlier processes included."""
        return self.before + (0.0 if self.started is None else time.monotonic() - self.started)

    def _part(self) -> float:
        """Part of the time that has passed, the same in all processes."""
        if self.started is None:
            self.started = time.monotonic()
        part = min(1.0, self.passed / self.seconds)
        return float(broadcast(torch.tensor([part], dtype=torch.float32, device=PartialState().device)).item())

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        part = self._part()
        self.rate = self.learning_rate * min(1.0, part / 0.05 + 1e-3) * 0.5 * (1 + math.cos(math.pi * part))
        for group in kwargs["optimizer"].param_groups:
            group["lr"] = self.rate

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self._part() >= 1:
            control.should_training_stop = True

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.is_world_process_zero:
            part = self.spent.with_suffix(".part")
            part.write_text(json.dumps({"seconds": self.passed}), encoding="utf-8")
            part.replace(self.spent)


class StageTrainer(Trainer):
    """Trainer that stops at a loss that is no number, before the step that would spoil the weights."""

    stage: Stage
    seed: int

    def compute_loss(self, model: nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        result = super().compute_loss(model, inputs, *args, **kwargs)
        loss = result[0] if isinstance(result, tuple) else result
        if not math.isfinite(loss.item()):
            step = self.state.global_step + 1
            raise PVCError(f"stage {self.stage.name}: the loss is {loss.item()} at step {step}; stopped before it")
        if not loss.requires_grad and model.training:
            # Text alone, where nothing that text goes through is trained: nothing to learn, and no reason to stop.
            loss = loss + 0.0 * sum(p.sum() for p in model.parameters() if p.requires_grad)
            return (loss, *result[1:]) if isinstance(result, tuple) else loss
        return result

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


def fit_stage(stage: Stage, model: nn.Module, dataset: Any, collator: Any, fit: Fit) -> int:
    """Train `model` in place for one stage, going on from the last checkpoint in `fit.output` if there is one.

    Raises:
        UsageError: a batch that does not divide among the processes, or a frozen name that no parameter has.
        PVCError: the loss stopped being a number.
    """
    _freeze(stage, model)
    _attend_for(stage, model)
    clock = None if fit.minutes is None else Clock(fit.minutes, stage.learning_rate, fit.output / "clock.json")
    trainer = StageTrainer(
        model=model,
        args=_arguments(stage, fit),
        train_dataset=dataset,
        data_collator=collator,
        callbacks=[StageLog(stage, fit, clock), *([] if clock is None else [clock])],
    )
    trainer.stage, trainer.seed = stage, fit.seed
    trainer.remove_callback(PrinterCallback)
    last = last_complete(fit.output, fit.report)
    if last is not None:
        fit.report(f"{stage.name}: going on from {last.name}")
        if clock is not None:
            clock.go_on()
    trainer.train(resume_from_checkpoint=None if last is None else str(last))
    return int(trainer.state.global_step)


def last_complete(output: Path, report: Report = lambda line: None) -> Path | None:
    """The newest checkpoint that was written to its end: a killed run may leave half of one behind."""
    found = sorted(output.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]), reverse=True)
    for path in found:
        try:
            # Trainer writes this file last.
            json.loads((path / "trainer_state.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            report(f"{path.parent.name}: {path.name} is incomplete and not used")
            continue
        return path
    return None


def _freeze(stage: Stage, model: nn.Module) -> None:
    for part in stage.trained:
        if not any(part in name for name, _ in model.named_parameters()):
            raise UsageError(f"stage {stage.name}: trained names {part!r}, which is in no parameter's name")
    if stage.trained:
        for name, parameter in model.named_parameters():
            parameter.requires_grad_("lora_" in name or any(part in name for part in stage.trained))
    for part in stage.frozen:
        found = [parameter for name, parameter in model.named_parameters() if part in name]
        if not found:
            raise UsageError(f"stage {stage.name}: frozen names {part!r}, which is in no parameter's name")
        for parameter in found:
            parameter.requires_grad_(False)


def _attend_for(stage: Stage, model: nn.Module) -> None:
    """Matrix products in place of the fused attention where training is bf16 on a CPU.

    torch's fused kernel is three times slower backwards in bf16 than in float32 there (torch 2.13, short sequences),
    which costs more than bf16 saves; written as matrix products attention is the fastest of all four.
    """
    for module in model.modules():
        if isinstance(module, PreTrainedModel) and stage.precision == "bf16" and not torch.cuda.is_available():
            module.set_attn_implementation("eager")


def _arguments(stage: Stage, fit: Fit) -> TrainingArguments:
    on_gpu = torch.cuda.is_available()
    arguments = TrainingArguments(
        output_dir=str(fit.output),
        max_steps=stage.steps,
        per_device_train_batch_size=_share(stage.batch_size),
        learning_rate=stage.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=stage.warmup_steps,
        weight_decay=stage.weight_decay,
        adam_beta2=0.98,
        max_grad_norm=stage.max_grad_norm,
        logging_steps=max(1, min(20, stage.steps // 20)),
        logging_nan_inf_filter=False,
        ddp_backend="gloo" if PartialState().num_processes > 1 and not on_gpu else None,
        save_steps=stage.save_steps,
        save_total_limit=2,
        seed=fit.seed,
        data_seed=fit.seed,
        report_to=[],
        use_cpu=not on_gpu,
        bf16=stage.precision == "bf16" or (stage.precision is None and on_gpu),
        dataloader_num_workers=fit.workers,
        dataloader_persistent_workers=fit.workers > 0,
        remove_unused_columns=False,
        label_names=["labels"],
        disable_tqdm=True,
        # Samples are independent already, and a resumed run must see the same ones.
        train_sampling_strategy="sequential",
    )
    # One process uses one GPU: Trainer would otherwise split a batch over all of them, and packed frames cannot be.
    arguments._n_gpu = min(arguments.n_gpu, 1)
    return arguments


def _share(batch_size: int) -> int:
    """A process's part of a batch, so that a recipe means the same on any number of processes."""
    processes = PartialState().num_processes
    if batch_size % processes:
        raise UsageError(f"a batch of {batch_size} does not divide among {processes} processes")
    return batch_size // processes


__all__ = ["Fit", "Measure", "Progress", "Report", "StageLog", "fit_stage"]
