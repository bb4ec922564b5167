"""Train for a given time instead of a number of steps (`pvc train --minutes`). Called by `run_stage.py`."""

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
    """Callback that sets the learning rate by the clock and stops the training when the time is up.

    The warm-up takes the first twentieth of the time. The schedule after it is a cosine to zero, or (wsd) a constant
    rate until a linear decay to zero over the last fifth.

    This is for machines that are rented by the minute. The result depends on their speed, so such a run is not
    reproducible. A resumed run has the minutes that were left at its last checkpoint. All processes follow the clock of
    the first process. With separate clocks their weights would diverge, and a process that stops a step early would
    leave the others waiting.

    Args:
        minutes: time to train.
        stage: gives the learning rate and its schedule.
        path: JSON file with the seconds of training so far, written with every checkpoint.

    Attributes:
        seconds: time to train.
        learning_rate: of the current step.
    """

    def __init__(self, minutes: float, stage: Stage, path: Path) -> None:
        self.seconds, self.stage, self._path = 60 * minutes, stage, path
        self._previous_seconds = 0.0
        self._start: float | None = None
        self.learning_rate = 0.0

    def resume(self) -> None:
        """Read the seconds of training before the last checkpoint."""
        if self._path.exists():
            self._previous_seconds = float(json.loads(self._path.read_text(encoding="utf-8"))["seconds"])

    @property
    def elapsed(self) -> float:
        """Seconds of training, including those of earlier processes."""
        return self._previous_seconds + (0.0 if self._start is None else time.monotonic() - self._start)

    def _get_progress(self) -> float:
        """Return the elapsed part of the time, from 0 to 1, equal in all processes."""
        if self._start is None:
            self._start = time.monotonic()
        progress = min(1.0, self.elapsed / self.seconds)
        return float(broadcast(torch.tensor([progress], dtype=torch.float32, device=PartialState().device)).item())

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Set the learning rate."""
        self.learning_rate = self.stage.learning_rate * compute_lr_factor(self._get_progress(), self.stage.schedule)
        for group in kwargs["optimizer"].param_groups:
            group["lr"] = self.learning_rate * group.get("factor", 1.0)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Stop the training if the time is up."""
        if self._get_progress() >= 1:
            control.should_training_stop = True

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Write the seconds of training so far."""
        if state.is_world_process_zero:
            part = self._path.with_suffix(".part")
            part.write_text(json.dumps({"seconds": self.elapsed}), encoding="utf-8")
            part.replace(self._path)


def compute_lr_factor(progress: float, schedule: str) -> float:
    """Compute the factor of the learning rate.

    Args:
        progress: elapsed part of the time, from 0 to 1.
        schedule: "cosine" or "wsd".
    """
    decay = min(1.0, 5 * (1 - progress)) if schedule == "wsd" else 0.5 * (1 + math.cos(math.pi * progress))
    return min(1.0, progress / 0.05 + 1e-3) * decay


__all__ = ["TimeBudget", "compute_lr_factor"]
