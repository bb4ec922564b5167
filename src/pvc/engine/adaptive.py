"""Adaptive image steps: a linear head says from a picture's first step how many steps the picture deserves.

The head predicts, for every number of steps it knows, how much better or worse than in the mean questions about the
picture will be answered; a price per step turns that into a choice. It is fitted to a checkpoint's own answers
(`pvc.lab.evaluate.steps`) and lies beside the weights. Leaves out encoding (`encode.py`).

F features, O numbers of steps, K tokens per frame and step, L language width.
"""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from pvc.checkpoint.files import CheckpointFiles
from pvc.errors import CheckpointError, UsageError

# A safetensors file by another name: programs that load a directory take every *.safetensors in it for weights.
FILE = "image_steps.head"
AUTO: Literal["auto"] = "auto"
_KEY = "pvc_image_steps"
_FORMAT = 1
_MOST_STEPS = 1024
_SHOWN = 12  # digits of a fingerprint in messages


def step_features(tokens: torch.Tensor) -> torch.Tensor:
    """`(tiles, K, L)` visual tokens of a picture's first step to `(F,)`, F = 2 L, in float32.

    Their mean and their standard deviation over positions, in the mean over tiles.
    """
    tokens = tokens.float()
    return torch.cat((tokens.mean(1), tokens.std(1, correction=0)), 1).mean(0).cpu()


@dataclass(frozen=True)
class StepHead:
    """A fitted head.

    Attributes:
        weight, bias: `(F, O)` and `(O,)` float32: features to predicted accuracy (0 to 1) at each of `steps`, less its
            mean over them.
        steps: numbers of steps to choose from, ascending.
        price: accuracy that one more step has to bring.
        checkpoint: `pvc.engine.visual_state.fingerprint` of the weights it was fitted to, as of bfloat16.
        facts: what fitting measured: samples, mean steps, accuracies.
    """

    weight: torch.Tensor
    bias: torch.Tensor
    steps: tuple[int, ...]
    price: float
    checkpoint: str
    facts: dict[str, Any] = field(default_factory=dict)

    def predict(self, features: torch.Tensor) -> torch.Tensor:
        """`(..., F)` features to `(..., O)` predicted gains."""
        return features @ self.weight + self.bias

    def choose(self, features: torch.Tensor) -> int:
        """The number of steps whose predicted gain, less its price, is highest; the smallest where several are."""
        return self.steps[int((self.predict(features) - self.price * torch.tensor(self.steps)).argmax())]

    def save(self, directory: str | Path) -> Path:
        """Write the head beside a checkpoint's weights, whole or not at all."""
        path = Path(directory) / FILE
        staging = path.with_name(f"{path.name}.part")
        about = {
            "format": _FORMAT,
            "steps": list(self.steps),
            "price": self.price,
            "checkpoint": self.checkpoint,
            "facts": self.facts,
        }
        tensors = {"weight": self.weight.contiguous(), "bias": self.bias.contiguous()}
        try:
            save_file(tensors, staging, metadata={_KEY: json.dumps(about)})
        except SafetensorError as error:  # a directory that cannot be written to, for one: it is no OSError there
            raise CheckpointError(f"cannot write {path}: {error}") from error
        staging.chmod(0o644)
        os.replace(staging, path)
        return path


def load_head(directory: str | Path | None, checkpoint: str, width: int) -> StepHead:
    """The head of a model directory (None: the bundled one).

    `checkpoint`: fingerprint of the weights it has to be of; `width`: L.

    Raises:
        UsageError: there is none.
        CheckpointError: it is damaged, or was fitted to other weights.
    """
    path = (Path(directory) if directory is not None else CheckpointFiles().directory) / FILE
    if not path.is_file():
        raise UsageError(
            f"this checkpoint has no {FILE}, which image_steps='auto' needs; `pvc fit-steps` makes one by measuring it"
        )
    try:
        with safe_open(path, "pt") as file:
            about = json.loads((file.metadata() or {})[_KEY])
            weight, bias = file.get_tensor("weight"), file.get_tensor("bias")
        steps, price = tuple(int(step) for step in about["steps"]), float(about["price"])
        made_for, version, facts = str(about["checkpoint"]), about["format"], dict(about["facts"])
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"cannot read {path}: {error}") from error
    if not math.isfinite(price) or not all(0 < step <= _MOST_STEPS for step in steps):
        raise CheckpointError(f"{path}: price {price} and steps {steps[:4]} make no sense")
    if version != _FORMAT:
        raise CheckpointError(f"{path} is of format {version}; this version of pvc reads {_FORMAT}")
    shape = (2 * width, len(steps))
    whole = tuple(weight.shape) == shape and tuple(bias.shape) == shape[1:] and weight.dtype == bias.dtype
    if not whole or weight.dtype != torch.float32 or list(steps) != sorted(set(steps)) or not steps:
        raise CheckpointError(f"{path}: weight is {tuple(weight.shape)} {weight.dtype}, not {shape} torch.float32")
    if not (bool(torch.isfinite(weight).all()) and bool(torch.isfinite(bias).all())):
        raise CheckpointError(f"{path} has values that are no numbers")
    if made_for != checkpoint:
        raise CheckpointError(
            f"{path} was fitted to other weights ({made_for[:_SHOWN]}) than these ({checkpoint[:_SHOWN]}); run "
            "`pvc fit-steps` again"
        )
    return StepHead(weight, bias, steps, price, made_for, facts)


__all__ = ["AUTO", "FILE", "StepHead", "load_head", "step_features"]
