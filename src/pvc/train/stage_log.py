"""What a person sees of a stage while it runs: a line or a bar, the curve's file, TensorBoard, held-out accuracy.

Called by Trainer as it goes (`run_stage.py`).
"""

from __future__ import annotations

import importlib.util
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from pvc.errors import PVCError
from pvc.train.data.collate import count_tokens
from pvc.train.interrupt import StopRequest
from pvc.train.json_lines import append_json_line, read_json_lines
from pvc.train.recipe import Stage
from pvc.train.time_budget import TimeBudget

Report = Callable[[str], None]
Progress = Callable[[str, float, str], None]
# Measures the model as it is: rows for the curve, each with "task" and "accuracy".
Measure = Callable[[], list[dict[str, Any]]]


@dataclass(frozen=True)
class StageContext:
    """How a stage is run: its seed, where it writes, and what it tells.

    Attributes:
        output: directory of the checkpoints.
        curve: file of JSON lines that the log and the measurements are appended to.
        measure: what is called every `stage.evaluate_every` steps.
        workers: processes that draw samples beside the training; 0 draws them in it.
        minutes: how long to train, whatever number of steps that is; the learning rate follows the clock.
        progress: told (stage, part done from 0 to 1, line) in place of `report` where it can show a bar.
        visual_ids: ids of the placeholders of visual tokens, which are counted apart.
        every_process: measure on every process, since each holds only a part of the weights.
        stop: signals that ask the training to stop.
    """

    seed: int
    output: Path
    curve: Path
    report: Report
    measure: Measure | None = None
    workers: int = 0
    minutes: float | None = None
    progress: Progress | None = None
    visual_ids: Sequence[int] = ()
    every_process: bool = False
    stop: StopRequest = field(default_factory=StopRequest)


class Counts:
    """Tokens that one process has gone through since they were last told."""

    def __init__(self, visual_ids: Sequence[int]) -> None:
        self.visual_ids = visual_ids
        self.clear()

    def clear(self) -> None:
        self.tokens = self.visual = self.places = self.longest = 0
        self.since = time.monotonic()

    def add(self, inputs: Mapping[str, Any]) -> None:
        """A batch of `(B, Q)` ids goes in; one without text counts nothing."""
        if "input_ids" not in inputs:
            return
        tokens, visual, places = count_tokens(inputs, self.visual_ids)
        self.tokens, self.visual, self.places = self.tokens + tokens, self.visual + visual, self.places + places
        self.longest = max(self.longest, inputs["input_ids"].shape[1])

    def told(self, processes: int) -> dict[str, float]:
        """Tokens a second of all processes, the longest row, and the part of the rows that is padding."""
        if not self.tokens:
            return {}
        passed = max(1e-9, time.monotonic() - self.since)
        return {
            "tokens_per_second": round(self.tokens * processes / passed, 1),
            "visual_tokens_per_second": round(self.visual * processes / passed, 1),
            "longest_row": self.longest,
            "padding": round(1 - self.tokens / self.places, 4),
        }


class StageLog(TrainerCallback):
    """Writes the curve as it grows, tells the time left, and measures in between."""

    def __init__(self, stage: Stage, fit: StageContext, clock: TimeBudget | None = None) -> None:
        self.stage, self.fit, self.clock = stage, fit, clock
        self.counts = Counts(fit.visual_ids)
        self.started = time.monotonic()
        self.first_step = 0
        self.board: Any = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        # After a resume, the steps before it took none of this process's time.
        self.first_step, self.started = state.global_step, time.monotonic()
        self.counts.clear()
        if state.is_world_process_zero:
            self._forget(state.global_step)
            self.board = _board(self.fit.output.parent / "tensorboard" / self.stage.name, state.global_step)
            if state.global_step and not self.fit.every_process and not self._has_measured(state.global_step):
                self._measure(state)  # a stop came before it

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.board is not None:
            self.board.close()
            self.board = None

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
        counted = self.counts.told(args.world_size)
        self.counts.clear()
        self._write({"step": state.global_step, "loss": logs["loss"], "lr": rate, **counted})
        of = "" if self.fit.minutes is not None else f"/{self.stage.steps}"
        line = f"{self.stage.name}: step {state.global_step}{of}  loss {logs['loss']:.4f}  {left:.0f} min left"
        if counted:
            line += f"  {_short(counted['tokens_per_second'])} tokens/s"
            line += f" ({_short(counted['visual_tokens_per_second'])} visual)"
        if self.fit.progress is None:
            self.fit.report(line)
            return
        done = state.global_step / self.stage.steps if self.fit.minutes is None else 1 - left / self.fit.minutes
        self.fit.progress(self.stage.name, done, line)

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        # A finite loss can have a gradient that is not; clipping by an infinite norm makes it NaN.
        sums = [_whole(parameter.grad.sum()) for parameter in model.parameters() if parameter.grad is not None]
        if sums and not math.isfinite(torch.stack(sums).sum().item()):
            step = state.global_step + 1
            raise PVCError(f"stage {self.stage.name}: the gradient is no number at step {step}; stopped before it")

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.fit.every_process or (state.is_world_process_zero and self.fit.stop.name is None):
            self._measure(state)

    def _measure(self, state: Any) -> None:
        every = self.stage.evaluate_every
        if every is None or self.fit.measure is None or state.global_step % every:
            return
        rows = self.fit.measure()
        if not state.is_world_process_zero or not rows:  # none where a stop was requested meanwhile
            return
        for row in rows:
            self._write({"step": state.global_step, **row})
        told = ", ".join(f"{row['task']} {row['accuracy']:.1%}" for row in rows)
        self.fit.report(f"{self.stage.name}: step {state.global_step}  held-out: {told}")

    def _write(self, row: dict[str, Any]) -> None:
        append_json_line(self.fit.curve, {"stage": self.stage.name, **row})
        if self.board is None:
            return
        for key, value in row.items():
            if isinstance(value, (int, float)) and key != "step":
                name = f"accuracy/{row['task']}" if key == "accuracy" else f"train/{key}"
                self.board.add_scalar(name, value, row["step"])

    def _has_measured(self, step: int) -> bool:
        rows = read_json_lines(self.fit.curve)
        return any(row.get("step") == step and row["stage"] == self.stage.name and "accuracy" in row for row in rows)

    def _forget(self, step: int) -> None:
        """Take out of the curve what will be written again: a killed run got further than its last checkpoint."""
        rows = list(read_json_lines(self.fit.curve))
        kept = [row for row in rows if row.get("stage") != self.stage.name or row.get("step", 0) <= step]
        if len(kept) < len(rows):
            part = self.fit.curve.with_suffix(".part")
            part.write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8")
            part.replace(self.fit.curve)


def _whole(value: torch.Tensor) -> torch.Tensor:
    """A sum of all processes' parts, where the weights are sharded."""
    return value.full_tensor() if hasattr(value, "full_tensor") else value


def _short(number: float) -> str:
    return f"{number:,.0f}" if number < 10_000 else f"{number / 1000:,.0f} k"


def _board(directory: Path, step: int) -> Any:
    """TensorBoard's writer, where it is installed; what an earlier run wrote after `step` is hidden."""
    if importlib.util.find_spec("tensorboard") is None:
        return None
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(directory), purge_step=step + 1)


__all__ = ["Measure", "Progress", "Report", "StageContext", "StageLog"]
