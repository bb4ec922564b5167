"""Log of a running stage: a line or a progress bar, the curve's file, TensorBoard and held-out accuracy.

`run_stage.py` adds it to Trainer's callbacks.
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
# Evaluates the model: entries for the curve, each with "task" and "accuracy".
Measure = Callable[[], list[dict[str, Any]]]


@dataclass(frozen=True)
class StageContext:
    """How a stage is run: its seed, its files and its callbacks.

    Attributes:
        seed: of examples and new weights.
        output: directory of the checkpoints.
        curve: file of JSON lines to which log entries and evaluations are appended.
        report: gets lines of text.
        measure: evaluates the model; called every `stage.evaluate_every` steps.
        workers: number of processes that read and generate examples; with 0 the training process does.
        minutes: time to train instead of a number of steps; the learning rate follows the clock.
        progress: gets the stage's name, its progress from 0 to 1 and a line, instead of `report`, to show a bar.
        visual_ids: ids of the placeholders of visual tokens, which are counted separately.
        every_process: whether all processes evaluate, because each has only a part of the weights.
        stop: signals that stop the training.
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


class TokenCounter:
    """Counts the tokens that one process trains on between two log entries.

    Args:
        visual_ids: ids of the placeholders of visual tokens.
    """

    def __init__(self, visual_ids: Sequence[int]) -> None:
        self.visual_ids = visual_ids
        self.clear()

    def clear(self) -> None:
        """Set all counts to 0, and restart the clock."""
        self.tokens = self.visual = self.positions = self.max_length = 0
        self._start = time.monotonic()

    def add(self, inputs: Mapping[str, Any]) -> None:
        """Count the tokens of a batch with `(B, Q)` ids; without text it has none."""
        if "input_ids" not in inputs:
            return
        tokens, visual, positions = count_tokens(inputs, self.visual_ids)
        self.tokens, self.visual, self.positions = (
            self.tokens + tokens,
            self.visual + visual,
            self.positions + positions,
        )
        self.max_length = max(self.max_length, inputs["input_ids"].shape[1])

    def get_rates(self, processes: int) -> dict[str, float]:
        """Return tokens per second of all processes, the longest row and the fraction of padding; {} without text."""
        if not self.tokens:
            return {}
        elapsed = max(1e-9, time.monotonic() - self._start)
        return {
            "tokens_per_second": round(self.tokens * processes / elapsed, 1),
            "visual_tokens_per_second": round(self.visual * processes / elapsed, 1),
            "longest_row": self.max_length,
            "padding": round(1 - self.tokens / self.positions, 4),
        }


class StageLog(TrainerCallback):
    """Callback that appends to the curve, reports the time left, and evaluates the model.

    Args:
        stage: that is trained.
        context: files and callbacks.
        budget: clock of a training by time.

    Attributes:
        counts: tokens since the last log entry.
    """

    def __init__(self, stage: Stage, context: StageContext, budget: TimeBudget | None = None) -> None:
        self.stage, self.context, self.budget = stage, context, budget
        self.counts = TokenCounter(context.visual_ids)
        self._start = time.monotonic()
        self._first_step = 0
        self._board: Any = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Open the log; after a resume, remove what a killed run wrote after its last checkpoint."""
        # After a resume, this process has spent no time on the steps before it.
        self._first_step, self._start = state.global_step, time.monotonic()
        self.counts.clear()
        if state.is_world_process_zero:
            self._remove_later_entries(state.global_step)
            self._board = _open_board(self.context.output.parent / "tensorboard" / self.stage.name, state.global_step)
            if state.global_step and not self.context.every_process and not self._has_measured(state.global_step):
                self._measure(state)  # the run was stopped before this evaluation

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Close TensorBoard's writer."""
        if self._board is not None:
            self._board.close()
            self._board = None

    def _compute_minutes_left(self, step: int) -> float:
        if self.budget is not None:
            return max(0.0, self.budget.seconds - self.budget.elapsed) / 60
        elapsed = (time.monotonic() - self._start) / 60
        done = step - self._first_step
        return elapsed / done * (self.stage.steps - step) if done else 0.0

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        """Append a loss to the curve and report it."""
        if not logs or "loss" not in logs or not state.is_world_process_zero:
            return
        left = self._compute_minutes_left(state.global_step)
        # Trainer logs the learning rate of its schedule, which a time budget replaces.
        rate = logs["learning_rate"] if self.budget is None else self.budget.learning_rate
        rates = self.counts.get_rates(args.world_size)
        self.counts.clear()
        self._write({"step": state.global_step, "loss": logs["loss"], "lr": rate, **rates})
        of = "" if self.context.minutes is not None else f"/{self.stage.steps}"
        line = f"{self.stage.name}: step {state.global_step}{of}  loss {logs['loss']:.4f}  {left:.0f} min left"
        if rates:
            line += f"  {_format_count(rates['tokens_per_second'])} tokens/s"
            line += f" ({_format_count(rates['visual_tokens_per_second'])} visual)"
        if self.context.progress is None:
            self.context.report(line)
            return
        done = state.global_step / self.stage.steps if self.context.minutes is None else 1 - left / self.context.minutes
        self.context.progress(self.stage.name, done, line)

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        """Raise PVCError if the gradient is not finite."""
        # A finite loss can have a non-finite gradient; clipping by an infinite norm makes it NaN.
        sums = [_gather_sum(parameter.grad.sum()) for parameter in model.parameters() if parameter.grad is not None]
        if sums and not math.isfinite(torch.stack(sums).sum().item()):
            step = state.global_step + 1
            raise PVCError(f"stage {self.stage.name}: the gradient is not finite at step {step}; stopped before it")

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Evaluate the model if it is due."""
        if self.context.every_process or (state.is_world_process_zero and self.context.stop.name is None):
            self._measure(state)

    def _measure(self, state: Any) -> None:
        interval = self.stage.evaluate_every
        if interval is None or self.context.measure is None or state.global_step % interval:
            return
        entries = self.context.measure()
        if not state.is_world_process_zero or not entries:  # none if a stop was requested meanwhile
            return
        for entry in entries:
            self._write({"step": state.global_step, **entry})
        accuracies = ", ".join(f"{entry['task']} {entry['accuracy']:.1%}" for entry in entries)
        self.context.report(f"{self.stage.name}: step {state.global_step}  held-out: {accuracies}")

    def _write(self, entry: dict[str, Any]) -> None:
        append_json_line(self.context.curve, {"stage": self.stage.name, **entry})
        if self._board is None:
            return
        for key, value in entry.items():
            if isinstance(value, (int, float)) and key != "step":
                name = f"accuracy/{entry['task']}" if key == "accuracy" else f"train/{key}"
                self._board.add_scalar(name, value, entry["step"])

    def _has_measured(self, step: int) -> bool:
        entries = read_json_lines(self.context.curve)
        return any(
            entry.get("step") == step and entry["stage"] == self.stage.name and "accuracy" in entry for entry in entries
        )

    def _remove_later_entries(self, step: int) -> None:
        """Remove entries of the curve after `step`, the last checkpoint of a killed run; they will be written again."""
        entries = list(read_json_lines(self.context.curve))
        earlier = [entry for entry in entries if entry.get("stage") != self.stage.name or entry.get("step", 0) <= step]
        if len(earlier) < len(entries):
            part = self.context.curve.with_suffix(".part")
            part.write_text("".join(json.dumps(entry) + "\n" for entry in earlier), encoding="utf-8")
            part.replace(self.context.curve)


def _gather_sum(value: torch.Tensor) -> torch.Tensor:
    """Add up the parts of all processes if the weights are sharded."""
    return value.full_tensor() if hasattr(value, "full_tensor") else value


def _format_count(number: float) -> str:
    return f"{number:,.0f}" if number < 10_000 else f"{number / 1000:,.0f} k"


def _open_board(directory: Path, step: int) -> Any:
    """Return TensorBoard's writer if it is installed; entries of an earlier run after `step` are hidden."""
    if importlib.util.find_spec("tensorboard") is None:
        return None
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(directory), purge_step=step + 1)


__all__ = ["Measure", "Progress", "Report", "StageContext", "StageLog"]
