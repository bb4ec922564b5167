"""Predict from a picture's first step how many steps it deserves.

A linear map predicts, for every number of steps it knows, how much better or worse than on average questions about the
picture will be answered. A price per step turns that into a choice. `pvc lab fit-steps` fits it to a checkpoint's
answers (`pvc.lab.evaluate.steps`) and writes it beside the weights.

With the bundled model, two steps for every picture were as good as this choice (docs/budget.md); `pvc ask` therefore
has no flag for it. Use its number as `image_steps`.

F features, O numbers of steps, K tokens per frame and step, L language width.
"""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from pvc.checkpoint.files import CheckpointFiles
from pvc.engine.encoder import Encoder
from pvc.engine.visual_state import fingerprint
from pvc.errors import CheckpointError, UsageError

# A safetensors file by another name: programs that load a directory take every *.safetensors in it for weights.
FILE = "image_steps.head"
_KEY = "pvc_image_steps"
_FORMAT = 1
_MAX_STEPS = 1024
_DIGITS = 12  # digits of a fingerprint in messages


def step_features(tokens: torch.Tensor) -> torch.Tensor:
    """`(tiles, K, L)` visual tokens of a picture's first step to `(F,)`, F = 2 L, in float32.

    Their mean and their standard deviation over positions, in the mean over tiles.
    """
    tokens = tokens.float()
    return torch.cat((tokens.mean(1), tokens.std(1, correction=0)), 1).mean(0).cpu()


@dataclass(frozen=True)
class StepPredictor:
    """A fitted predictor.

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
        """Write the predictor beside a checkpoint's weights, whole or not at all."""
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


def load_predictor(directory: str | Path | None, checkpoint: str, width: int) -> StepPredictor:
    """Load the predictor of a model directory (None: the bundled one).

    `checkpoint`: fingerprint of the weights it has to be of; `width`: L.

    Raises:
        UsageError: there is none.
        CheckpointError: it is damaged, or was fitted to other weights.
    """
    path = (Path(directory) if directory is not None else CheckpointFiles().directory) / FILE
    if not path.is_file():
        raise UsageError(f"this checkpoint has no {FILE}, the step predictor; `pvc lab fit-steps` writes one for it")
    try:
        with safe_open(path, "pt") as file:
            about = json.loads((file.metadata() or {})[_KEY])
            weight, bias = file.get_tensor("weight"), file.get_tensor("bias")
        steps, price = tuple(int(step) for step in about["steps"]), float(about["price"])
        made_for, version, facts = str(about["checkpoint"]), about["format"], dict(about["facts"])
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"cannot read {path}: {error}") from error
    if not math.isfinite(price) or not all(0 < step <= _MAX_STEPS for step in steps):
        raise CheckpointError(f"{path}: price {price} and steps {steps[:4]} make no sense")
    if version != _FORMAT:
        raise CheckpointError(f"{path} is of format {version}; this version of pvc reads {_FORMAT}")
    shape = (2 * width, len(steps))
    whole = tuple(weight.shape) == shape and tuple(bias.shape) == shape[1:] and weight.dtype == bias.dtype
    if not whole or weight.dtype != torch.float32 or list(steps) != sorted(set(steps)) or not steps:
        raise CheckpointError(f"{path}: weight is {tuple(weight.shape)} {weight.dtype}, not {shape} torch.float32")
    if not (bool(torch.isfinite(weight).all()) and bool(torch.isfinite(bias).all())):
        raise CheckpointError(f"{path} has non-finite values")
    if made_for != checkpoint:
        raise CheckpointError(
            f"{path} was fitted to other weights ({made_for[:_DIGITS]}) than these ({checkpoint[:_DIGITS]}); run "
            "`pvc lab fit-steps` again"
        )
    return StepPredictor(weight, bias, steps, price, made_for, facts)


def predictor_for(encoder: Encoder) -> StepPredictor:
    """Load the predictor of a loaded checkpoint; raises as `load_predictor` does."""
    made_for = fingerprint(encoder.model, rounded=True)
    return load_predictor(encoder.directory, made_for, encoder.model.config.text_config.hidden_size)


__all__ = ["FILE", "StepPredictor", "load_predictor", "predictor_for", "step_features"]
