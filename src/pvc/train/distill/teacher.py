"""The teacher of a distillation: its checks against the student, its forward pass, tensors that both share in memory.

Called by `setup.py`, `answers.py` and `answer_data.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from pvc.errors import ConfigError
from pvc.model.config import PVCConfig

TEACHER = "teacher_"
TEXT = ("input_ids", "attention_mask", "position_ids", "answer", "after")
PIXELS = ("pixel_values", "image_grid_thw", "pixel_values_videos", "video_grid_thw")
_EQUAL_VISION = ("hidden_size", "num_hidden_layers", "image_size", "patch_size")
HOW = "write it with: pvc convert SOURCE TEACHER --ratio 1/2 --image-steps 1"


def check_pair(student: PVCConfig, teacher: PVCConfig, order: bool = True) -> int:
    """Return how many of the teacher's tokens one token of the student stands for.

    Args:
        student, teacher: configurations.
        order: whether the student's pictures must have their tokens in the teacher's order.

    Raises:
        ConfigError: the two do not fit together; the message names both values.
    """
    for name in _EQUAL_VISION:
        ours, theirs = (_plain(getattr(config.vision_config, name)) for config in (student, teacher))
        if ours != theirs:
            raise ConfigError(
                f"vision_config.{name} is {ours} in the student and {theirs} in the teacher; both must be converted "
                "from one source"
            )
    ours, theirs = student.text_config.hidden_size, teacher.text_config.hidden_size
    if ours != theirs:
        raise ConfigError(
            f"text_config.hidden_size is {ours} in the student and {theirs} in the teacher; both must be converted "
            "from one source"
        )
    times, rest = divmod(student.downsample_factor, teacher.downsample_factor)
    if rest or times not in (2, 4):
        raise ConfigError(
            f"the student's downsample_ratio is {student.downsample_ratio:g} and the teacher's "
            f"{teacher.downsample_ratio:g}; the teacher must have 4 or 16 tokens for one of the student's: {HOW}"
        )
    if teacher.image_steps != 1:
        raise ConfigError(f"the teacher's image_steps is {teacher.image_steps}; it must be 1: {HOW}")
    if order and (student.image_token_order, student.compressor_norm_groups) != ("raster", times**2):
        raise ConfigError(
            f"the student's image_token_order is {student.image_token_order!r} with compressor_norm_groups "
            f"{student.compressor_norm_groups}; its tokens must have the teacher's order ('raster', {times**2}). "
            "Convert it with --init exact"
        )
    limit = student.vision_config.timestep_limit if student.vision_config.timestep == "index" else None
    if limit is not None and limit < times**2 - 1:
        raise ConfigError(f"the student's timestep_limit is {limit}; {times**2} blocks need at least {times**2 - 1}")
    return int(times**2)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, (list, tuple)) else value


@dataclass(frozen=True)
class Shared:
    """Tensors of the teacher that are the student's, and how many bytes that saves."""

    tensors: int = 0
    nbytes: int = 0

    def describe(self) -> str:
        """One line for people."""
        return f"{self.tensors} tensors are shared with the student, which saves {self.nbytes / 2**20:,.1f} MiB"


def share_frozen(student: nn.Module, teacher: nn.Module) -> Shared:
    """Let the teacher use the student's frozen parameters wherever both are equal.

    The parameter objects are shared, so that moving the student to a device moves them, too.
    """
    own = {
        name.replace(".base_layer.", "."): parameter
        for name, parameter in student.named_parameters(remove_duplicate=False)
        if not parameter.requires_grad
    }
    count, seen = 0, {}
    for path, module in teacher.named_modules():
        for name, parameter in list(module._parameters.items()):
            ours = own.get(f"{path}.{name}" if path else name)
            if parameter is None or ours is None or ours.shape != parameter.shape or ours.dtype != parameter.dtype:
                continue
            if torch.equal(ours, parameter):
                module._parameters[name] = ours
                count += 1
                seen[ours.data_ptr()] = ours.numel() * ours.element_size()
    return Shared(count, sum(seen.values()))


class FrozenTeacher:
    """Holds the teacher outside of a module's tree: it is not trained, saved or spread over processes."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module.requires_grad_(False).eval()

    def on(self, device: torch.device) -> nn.Module:
        """Return the teacher on `device`."""
        if any(tensor.device != device for tensor in self.module.parameters()):
            self.module.to(device)
        return self.module


def teacher_text(batch: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """Return a batch's text for the teacher, without "teacher_" in the names; None for what it does not have."""
    return {name: batch.get(f"{TEACHER}{name}") for name in TEXT}


@torch.no_grad()
def run_teacher(
    teacher: Any, media: Mapping[str, torch.Tensor | None], text: Mapping[str, Any]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Run a teacher, pictures in one step.

    Args:
        teacher: a whole model.
        media: `pixel_values` and the like, as the model takes them.
        text: `input_ids` `(B, Q)` and the like; `answer` and `after` `(B, Q)` are above 0 at the positions to return.

    Returns:
        Last hidden states `(R, D)` after the media and log-probabilities `(P, V)` of the answers' tokens, float32.
    """
    inputs = {name: value for name, value in text.items() if name not in ("answer", "after")}
    steps = None if media.get("pixel_values") is None else 1
    hidden = teacher.model(**inputs, **media, image_steps=steps, use_cache=False).last_hidden_state
    log_probs = teacher.lm_head(hidden[text["answer"] > 0]).float().log_softmax(-1)
    return hidden[text["after"] > 0].float(), log_probs


__all__ = [
    "HOW",
    "PIXELS",
    "TEACHER",
    "FrozenTeacher",
    "Shared",
    "check_pair",
    "run_teacher",
    "share_frozen",
    "teacher_text",
]
