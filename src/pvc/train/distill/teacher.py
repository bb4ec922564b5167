"""The teacher of a distillation: checks against the student, forward pass, and tensors that both share in memory.

Called by `setup.py`, `answers.py`, `tokens.py` and `answer_data.py`.

B rows, Q tokens of a row, V vocabulary, P positions that predict a token of an answer, R positions of text after the
media, D hidden width.
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
CONVERT_HINT = "write it with: pvc convert SOURCE TEACHER --ratio 1/2 --image-steps 1"


def check_pair(student: PVCConfig, teacher: PVCConfig, order: bool = True) -> int:
    """Check a pair of models; return how many of the teacher's tokens one token of the student stands for.

    Args:
        student: configuration.
        teacher: configuration.
        order: whether the student's pictures must have their tokens in the teacher's order.

    Raises:
        ConfigError: the two do not fit together; the message has both values.
    """
    for name in _EQUAL_VISION:
        values = [_to_list(getattr(config.vision_config, name)) for config in (student, teacher)]
        if values[0] != values[1]:
            raise ConfigError(
                f"vision_config.{name} is {values[0]} in the student and {values[1]} in the teacher; both must be "
                "converted from one source"
            )
    width, teacher_width = student.text_config.hidden_size, teacher.text_config.hidden_size
    if width != teacher_width:
        raise ConfigError(
            f"text_config.hidden_size is {width} in the student and {teacher_width} in the teacher; both must be "
            "converted from one source"
        )
    times, rest = divmod(student.downsample_factor, teacher.downsample_factor)
    if rest or times not in (2, 4):
        raise ConfigError(
            f"the student's downsample_ratio is {student.downsample_ratio:g} and the teacher's "
            f"{teacher.downsample_ratio:g}; the teacher must have 4 or 16 tokens for one of the student's: "
            f"{CONVERT_HINT}"
        )
    if teacher.image_steps != 1:
        raise ConfigError(f"the teacher's image_steps is {teacher.image_steps}; it must be 1: {CONVERT_HINT}")
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


def _to_list(value: Any) -> Any:
    """Return a list for a list or tuple; other values unchanged."""
    return list(value) if isinstance(value, (list, tuple)) else value


@dataclass(frozen=True)
class SharedTensors:
    """Memory that teacher and student share.

    Attributes:
        tensors: number of shared tensors.
        nbytes: their size in bytes, which is saved.
    """

    tensors: int = 0
    nbytes: int = 0

    def describe(self) -> str:
        """Return one line of text."""
        return f"{self.tensors} tensors are shared with the student, which saves {self.nbytes / 2**20:,.1f} MiB"


def share_frozen(student: nn.Module, teacher: nn.Module) -> SharedTensors:
    """Replace the teacher's parameters by the student's frozen parameters wherever both are equal.

    The parameter objects are shared, so that moving the student to a device moves them, too.

    Args:
        student: with trainable and frozen parameters.
        teacher: is changed in place.
    """
    frozen = {
        name.replace(".base_layer.", "."): parameter
        for name, parameter in student.named_parameters(remove_duplicate=False)
        if not parameter.requires_grad
    }
    count, sizes = 0, {}
    for path, module in teacher.named_modules():
        for name, parameter in list(module._parameters.items()):
            shared = frozen.get(f"{path}.{name}" if path else name)
            if parameter is None or shared is None:
                continue
            if shared.shape != parameter.shape or shared.dtype != parameter.dtype:
                continue
            if torch.equal(shared, parameter):
                module._parameters[name] = shared
                count += 1
                sizes[shared.data_ptr()] = shared.numel() * shared.element_size()
    return SharedTensors(count, sum(sizes.values()))


class FrozenTeacher:
    """Holder of the teacher outside of a module's tree, so that it is not trained, saved or sharded.

    Args:
        module: the teacher.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module.requires_grad_(False).eval()

    def to_device(self, device: torch.device) -> nn.Module:
        """Return the teacher, moved to a device."""
        if any(tensor.device != device for tensor in self.module.parameters()):
            self.module.to(device)
        return self.module


def get_teacher_text(batch: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """Return the teacher's text inputs of a batch, without "teacher_" in the names; missing ones are None."""
    return {name: batch.get(f"{TEACHER}{name}") for name in TEXT}


@torch.no_grad()
def run_teacher(
    teacher: Any, media: Mapping[str, torch.Tensor | None], text: Mapping[str, Any]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Run a teacher, with pictures in one step.

    Args:
        teacher: a whole model.
        media: `pixel_values` and the other media inputs of the model.
        text: `input_ids` `(B, Q)` and the other text inputs; `answer` and `after` `(B, Q)` are above 0 at the positions
            to return.

    Returns:
        Last hidden states `(R, D)` after the media and log-probabilities `(P, V)` of the answers' tokens, float32.
    """
    inputs = {name: value for name, value in text.items() if name not in ("answer", "after")}
    steps = None if media.get("pixel_values") is None else 1
    hidden = teacher.model(**inputs, **media, image_steps=steps, use_cache=False).last_hidden_state
    log_probs = teacher.lm_head(hidden[text["answer"] > 0]).float().log_softmax(-1)
    return hidden[text["after"] > 0].float(), log_probs


__all__ = [
    "CONVERT_HINT",
    "PIXELS",
    "TEACHER",
    "FrozenTeacher",
    "SharedTensors",
    "check_pair",
    "get_teacher_text",
    "run_teacher",
    "share_frozen",
]
