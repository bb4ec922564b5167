"""Compute the cost of a stage of token distillation from shapes alone: operations and memory of a tile and of a clip.

Nothing is allocated. Student and teacher run on tensors without data, torch counts their operations, and the tensors
that autograd would store are added up. Called by `pvc distill --dry-run`, `pvc train --dry-run` and
`benchmarks/distillation.py`, from which the figures in `recipes/distill-*` are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from pvc.errors import UsageError
from pvc.model.config import PVCConfig
from pvc.processing.processor import PVCProcessor
from pvc.train.distill.setup import build_visual
from pvc.train.distill.tokens import TokenDistiller
from pvc.train.distill.visual import VisualModel
from pvc.train.memory import GRADIENT_BYTES, MOMENT_BYTES, WEIGHT_BYTES, ActivationCounter, move_to_fake
from pvc.train.recipe import Recipe, Stage
from pvc.train.run_stage import set_trainable


@dataclass(frozen=True)
class Cost:
    """Cost of one process.

    Attributes:
        operations: floating-point operations by name of the medium, forward and backward, including the teacher's.
        activations: bytes that autograd stores, by name of the medium.
        parameters: number of parameters of the student's tower and compressor.
        trained: number of those that are trained.
        unshared: number of parameters of the teacher that are not shared with the student.
    """

    operations: dict[str, float]
    activations: dict[str, int]
    parameters: int
    trained: int
    unshared: int

    @property
    def fixed(self) -> int:
        """Bytes of weights (including the teacher's), gradients and AdamW's moments."""
        return (self.parameters + self.unshared) * WEIGHT_BYTES + self.trained * (GRADIENT_BYTES + MOMENT_BYTES)

    def describe(self) -> str:
        """Return one line of text."""
        media = "; ".join(
            f"{name} {_format_flops(count)}, {_format_bytes(self.activations[name])} kept"
            for name, count in self.operations.items()
        )
        return (
            f"no language model; weights, gradients and optimizer {_format_bytes(self.fixed)} "
            f"({self.parameters:,} parameters, {self.trained:,} trained); {media}"
        )


def _format_flops(count: float) -> str:
    return f"{count / 1e12:.1f} TFLOP" if count >= 1e11 else f"{count / 1e6:.1f} MFLOP"


def _format_bytes(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**28 else f"{count / 2**20:.1f} MiB"


class _TracedDistiller(TokenDistiller):
    """Distiller whose teacher runs with gradients, because without them the code for CPUs depends on values."""

    def _encode_teacher_blocks(self, pixels: torch.Tensor, frames: Sequence[int]) -> list[torch.Tensor]:
        with torch.enable_grad():
            return super()._encode_teacher_blocks(pixels, frames)


def stage_cost(recipe: Recipe, stage: Stage, processor: PVCProcessor) -> Cost:
    """Compute the cost of a stage of token distillation.

    Args:
        recipe: with the model's shape (`model_init.resolve_recipe`).
        stage: of kind distill.
        processor: of the student.

    Raises:
        UsageError: the stage runs the language model.
    """
    if stage.distill is None or not stage.is_token_distillation:
        raise UsageError(f"stage {stage.name}: only the cost of the token loss can be computed (distill.loss: tokens)")
    with torch.device("meta"):
        student = build_visual(recipe, stage, processor)
        teacher = VisualModel.from_config(_teacher_config(student.config))
        groups = (student.config.downsample_factor // teacher.config.downsample_factor) ** 2
        distiller = _TracedDistiller(student, teacher, groups, stage.distill.target, stage.image_steps)
    set_trainable(stage, distiller)
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    move_to_fake(distiller, mode)
    move_to_fake(teacher, mode)
    if stage.checkpointing:
        distiller.activation_checkpointing_enable({"use_reentrant": False})
    side = student.config.vision_config.image_size[0]
    frames = max(stage.file_frames or {processor.video_processor.num_frames: 1.0})
    operations, activations = {}, {}
    for steps in sorted(stage.image_steps):
        name = f"tile in {steps} step{'s'[: steps != 1]}"
        batch = {"pixel_values": (1, 3, side, side)}
        operations[name], activations[name] = _measure(distiller, batch, torch.tensor([steps]), mode, stage)
    name = f"clip of {frames} frames"
    batch = {"pixel_values_videos": (frames, 3, side, side)}
    operations[name], activations[name] = _measure(distiller, batch, None, mode, stage)
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in distiller.parameters()]
    # The teacher's temporal blocks are not shared if the student's are trained.
    unshared = sum(p.numel() for p in student.model.vision_tower.parameters() if p.requires_grad)
    unshared += sum(p.numel() for p in teacher.model.multi_modal_projector.parameters())
    return Cost(
        operations,
        activations,
        parameters=sum(size for size, _ in sizes),
        trained=sum(size for size, is_trained in sizes if is_trained),
        unshared=unshared,
    )


def _teacher_config(student: PVCConfig) -> PVCConfig:
    """Return the configuration that `pvc convert --ratio 1/2 --image-steps 1` writes, without temporal blocks.

    Those blocks are the identity, and inference skips them.
    """
    values = student.to_dict()
    vision = {**values["vision_config"], "timestep": "index", "timestep_period": None, "num_temporal_layers": 0}
    changes = {"downsample_ratio": 0.5, "image_steps": 1, "compressor_norm_groups": 1, "image_token_order": "step"}
    return PVCConfig.from_dict({**values, **changes, "vision_config": vision})


def _measure(
    distiller: TokenDistiller,
    shapes: Mapping[str, Sequence[int]],
    steps: torch.Tensor | None,
    mode: FakeTensorMode,
    stage: Stage,
) -> tuple[float, int]:
    """Return the operations of a forward and backward pass, and the bytes that are stored between them."""
    counter = ActivationCounter(distiller)
    distiller.train()
    with ExitStack() as stack:
        stack.enter_context(mode)
        flop_counter = stack.enter_context(FlopCounterMode(display=False))
        if stage.precision != "float32":
            stack.enter_context(torch.autocast("cpu", torch.bfloat16))
        with counter.hooks():
            batch = {name: torch.empty(shape) for name, shape in shapes.items()}
            loss = distiller(**batch, image_steps=steps)["loss"]
        loss.backward()
        distiller.zero_grad()
        return float(flop_counter.get_total_flops()), counter.nbytes


__all__ = ["Cost", "stage_cost"]
