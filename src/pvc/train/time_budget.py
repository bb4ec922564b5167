"""A training by the clock instead of by steps. Used by `run_stage.py`."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import broadcast
from transformers import TrainerCallback

from pvc.train.recipe import Stage


class TimeBudget(TrainerCallback):
    """Trains for a time: warm-up over its first twentieth, then the stage's schedule to zero, then the end.

    That is a cosine, or (wsd) a constant rate until a linear decay over the last fifth.

    For machines that are lent by the minute. What comes out depends on their speed, so such a run cannot be repeated
    to the bit; one that is called again has the minutes that were left at its last checkpoint. All processes follow
    the first one's clock: with clocks of their own their weights would drift apart, and one that stops a step early
    leaves the others waiting.

    `spent` is the file that keeps the seconds trained, written with every checkpoint.
    """

    def __init__(self, minutes: float, stage: Stage, spent: Path) -> None:
        self.seconds, self.stage, self.spent = 60 * minutes, stage, spent
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
        self.rate = self.stage.learning_rate * factor_at(part, self.stage.schedule)
        for group in kwargs["optimizer"].param_groups:
            group["lr"] = self.rate * group.get("factor", 1.0)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self._part() >= 1:
            control.should_training_stop = True

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.is_world_process_zero:
            part = self.spent.with_suffix(".part")
            part.write_text(json.dumps({"seconds": self.passed}), encoding="utf-8")
            part.replace(self.spent)


def factor_at(part: float, schedule: str) -> float:
    """Factor of the learning rate after `part` (0 to 1) of the time."""
    decay = min(1.0, 5 * (1 - part)) if schedule == "wsd" else 0.5 * (1 + math.cos(math.pi * part))
    return min(1.0, part / 0.05 + 1e-3) * decay


__all__ = ["TimeBudget", "factor_at"]
