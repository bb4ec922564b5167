"""A training by the clock instead of by steps. Used by `fit.py`."""

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
            group["lr"] = self.rate * group.get("factor", 1.0)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self._part() >= 1:
            control.should_training_stop = True

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.is_world_process_zero:
            part = self.spent.with_suffix(".part")
            part.write_text(json.dumps({"seconds": self.passed}), encoding="utf-8")
            part.replace(self.spent)


__all__ = ["Clock"]
