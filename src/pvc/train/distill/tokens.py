"""The token loss: compare the student's visual tokens with those of its base, without the language model.

Trainer calls `TokenDistiller.forward`; `setup.py` builds the module.

T steps, F frames, G the teacher's tokens in one of the student's, K student's tokens per frame and step, L language
width.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import nn

from pvc.model.config import PVCVisionConfig
from pvc.model.inputs import clip_sizes, steps_per_tile
from pvc.model.order import block_positions
from pvc.train.distill.teacher import FrozenTeacher
from pvc.train.distill.visual import VisualModel

MAX_RANK = 256
CLIP = "clip"


def split_blocks(tokens: torch.Tensor, groups: int) -> torch.Tensor:
    """Split the teacher's tokens of a frame into blocks in the order of steps.

    Args:
        tokens: `(..., G K, L)`.
        groups: `G`.

    Returns:
        `(..., G, K, L)`.
    """
    *lead, count, width = tokens.shape
    side, times = round((count // groups) ** 0.5), round(groups**0.5)
    grid = tokens.view(*lead, side, times, side, times, width).movedim((-4, -2), (-5, -4))  # (..., b, b, k, k, L)
    positions = block_positions(groups)
    return torch.stack([grid[..., row, column, :, :, :].flatten(-3, -2) for row, column in positions], dim=-3)


def get_step_blocks(config: PVCVisionConfig, start: int, steps: int, groups: int) -> list[int]:
    """Return the block that each step stands for.

    Args:
        config: of the student's tower.
        start: number of the first step.
        steps: number of steps.
        groups: `G`.
    """
    numbers: Iterable[int] = range(start, start + steps)
    if config.timestep == "cyclic":
        numbers = [number % (config.timestep_period or 1) for number in numbers]
    elif config.timestep == "index" and config.timestep_limit is not None:
        numbers = [min(number, config.timestep_limit) for number in numbers]
    return [number % groups for number in numbers]


class TokenMap(nn.Module):
    """Linear map from the tokens of some steps to all blocks; it is discarded after training.

    Initially the block of a step is that step's token, and every other block is the mean of all tokens. The trained
    part that is added to this has at most rank `MAX_RANK`.

    Args:
        steps: `T`, at most `G`.
        groups: `G`.
        width: `L`.
    """

    start: torch.Tensor

    def __init__(self, steps: int, groups: int, width: int) -> None:
        super().__init__()
        copy = torch.eye(groups, steps)
        copy[steps:] = 1 / steps
        self.register_buffer("start", copy)
        rank = min(MAX_RANK, steps * width)
        self.down = nn.Linear(steps * width, rank, bias=False)
        self.up = nn.Linear(rank, groups * width)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Map tokens `(..., T, L)` to blocks `(..., G, L)`; the first `T` blocks are those of the steps."""
        trained = self.up(self.down(tokens.flatten(-2))).unflatten(-1, (len(self.start), tokens.shape[-1]))
        return torch.einsum("gt,...tl->...gl", self.start.to(tokens.dtype), tokens) + trained


class TokenDistiller(nn.Module):
    """Student, teacher and the loss between their tokens.

    Args:
        student: tower and compressor.
        teacher: tower and compressor; it is not among the parameters.
        groups: `G`.
        target: what a picture in fewer than `G` steps learns. "block": each step learns its block. "mean": the first
            step learns the mean of all blocks, later steps the difference of their block from it. "map": all blocks, by
            a `TokenMap`. With "map", clips also learn all blocks, from the last `G` frames. In any case every frame
            learns its block.
        image_steps: numbers of steps that pictures may have.
        variance: of the teacher's tokens; squared errors are divided by it.
    """

    # The loss is a mean over its batch; otherwise Trainer would scale it by the number of processes.
    accepts_loss_kwargs = False
    _no_split_modules = ["PVCVisionLayer"]
    variance: torch.Tensor

    def __init__(
        self,
        student: VisualModel,
        teacher: VisualModel,
        groups: int,
        target: str,
        image_steps: Iterable[int],
        variance: float = 1.0,
    ) -> None:
        super().__init__()
        self.student = student
        self._teacher = FrozenTeacher(teacher)
        self.groups, self.target = groups, target
        self.register_buffer("variance", torch.tensor(variance, dtype=torch.float32))
        width = student.config.text_config.hidden_size
        names = {str(steps): steps for steps in sorted(image_steps) if steps < groups} | {CLIP: groups}
        self.maps = nn.ModuleDict(
            {name: TokenMap(steps, groups, width) for name, steps in names.items()} if target == "map" else {}
        )

    def activation_checkpointing_enable(self, *args: Any, **kwargs: Any) -> None:
        """Recompute the tower's activations in the backward pass; called by Trainer.

        Args:
            *args: of the tower's method.
            **kwargs: of the tower's method.
        """
        tower = self.student.model.vision_tower
        enable = getattr(tower, "activation_checkpointing_enable", None) or tower.gradient_checkpointing_enable
        enable(*args, **kwargs)

    gradient_checkpointing_enable = activation_checkpointing_enable

    def forward(
        self,
        pixel_values: torch.Tensor | None = None,
        image_grid_thw: torch.Tensor | None = None,
        image_steps: torch.Tensor | None = None,
        pixel_values_videos: torch.Tensor | None = None,
        video_grid_thw: torch.Tensor | None = None,
        step_offset: torch.Tensor | None = None,
        media_weights: torch.Tensor | None = None,
    ) -> dict[str, torch.Tensor]:
        """Compute the loss of a batch: the weighted mean over its media, of which pictures come before videos.

        Args:
            pixel_values: `(tiles, 3, S, S)`, pictures.
            image_grid_thw: `(pictures, 3)`, with the number of tiles.
            image_steps: of pictures.
            pixel_values_videos: `(frames, 3, S, S)`, videos.
            video_grid_thw: `(videos, 3)`, with the number of frames.
            step_offset: `(videos,)`, number of the first step.
            media_weights: `(media,)`; by default equal.
        """
        tiles: list[int] = []
        frames: list[int] = []
        steps: list[int] = []
        if pixel_values is not None:
            tiles = clip_sizes(image_grid_thw, len(pixel_values), "tiles", default=[1] * len(pixel_values))
            steps = steps_per_tile(image_steps, tiles, self.student.config)
        if pixel_values_videos is not None:
            count = len(pixel_values_videos)
            frames = clip_sizes(video_grid_thw, count, "frames", default=[count])
        pixels = torch.cat([values for values in (pixel_values, pixel_values_videos) if values is not None])
        starts = [0] * sum(tiles) + ([0] * len(frames) if step_offset is None else step_offset.tolist())
        clips, _ = self.student.model.encode_clips(
            pixels, frames=[1] * sum(tiles) + frames, steps=steps + frames, step_offset=starts if any(starts) else None
        )
        with torch.no_grad():
            base = self._encode_teacher_blocks(pixels, [1] * sum(tiles) + frames)
        losses, start = [], 0
        for count in tiles:
            tile_losses = [self._compute_tile_loss(clips[tile], base[tile][0]) for tile in range(start, start + count)]
            losses.append(torch.stack(tile_losses).mean())
            start += count
        losses += [self._compute_clip_loss(clips[n], base[n], starts[n]) for n in range(start, start + len(frames))]
        stacked = torch.stack(losses)
        weights = stacked.new_ones(len(stacked)) if media_weights is None else media_weights.to(stacked)
        return {"loss": (stacked * weights).sum() / weights.sum() + self._join_unused_maps(stacked)}

    def _encode_teacher_blocks(self, pixels: torch.Tensor, frames: Sequence[int]) -> list[torch.Tensor]:
        """Compute the teacher's tokens by block, one `(F, G, K, L)` float32 tensor per clip."""
        teacher: Any = self._teacher.to_device(pixels.device)
        clips, _ = teacher.model.encode_clips(pixels, frames=list(frames))
        return [split_blocks(clip.float(), self.groups) for clip in clips]

    def _compute_tile_loss(self, tokens: torch.Tensor, base: torch.Tensor) -> torch.Tensor:
        """Compute the loss of a picture's tile: `(T, K, L)` tokens, `(G, K, L)` blocks."""
        tokens, steps = tokens.float(), len(tokens)
        step_blocks = get_step_blocks(self.student.config.vision_config, 0, steps, self.groups)
        if steps >= self.groups or self.target == "block":
            return self._compute_error(tokens, base[step_blocks])
        if self.target == "mean":
            mean = base.mean(0, keepdim=True)
            return self._compute_error(tokens, torch.cat((mean, base[step_blocks[1:]] - mean)))
        others = [block for block in range(self.groups) if block not in step_blocks]
        mapped = self.maps[str(steps)](tokens.transpose(0, 1)).transpose(0, 1)
        return self._compute_error(mapped, base[step_blocks + others])

    def _compute_clip_loss(self, tokens: torch.Tensor, base: torch.Tensor, start: int) -> torch.Tensor:
        """Compute the loss of a video: `(T, K, L)` tokens, `(T, G, K, L)` blocks of the same frames."""
        tokens, steps = tokens.float(), len(tokens)
        step_blocks = get_step_blocks(self.student.config.vision_config, start, steps, self.groups)
        loss = self._compute_error(tokens, base[torch.arange(steps), step_blocks])
        if CLIP not in self.maps or steps < self.groups:
            return loss
        # The last G frames, the newest first: together they have every block, of different times.
        places = torch.arange(self.groups - 1, steps)[:, None] - torch.arange(self.groups)
        mapped = self.maps[CLIP](tokens[places].transpose(1, 2)).transpose(1, 2)  # (frames, G, K, L)
        blocks = torch.tensor(step_blocks)[places]
        return (loss + self._compute_error(mapped, base[places[:, :1], blocks])) / 2

    def _compute_error(self, actual: torch.Tensor, expected: torch.Tensor) -> torch.Tensor:
        return (actual.float() - expected).square().mean() / self.variance

    def _join_unused_maps(self, like: torch.Tensor) -> torch.Tensor:
        """Return zero, computed from every map: DDP requires that every parameter takes part in a step."""
        parts = [parameter.flatten()[:0].sum() for parameter in self.maps.parameters()]
        return torch.stack(parts).sum() if parts else like.new_zeros(())

    @torch.no_grad()
    def measure_variance(self, batches: Iterable[dict[str, torch.Tensor]], device: torch.device) -> None:
        """Set `variance` from the teacher's tokens: the mean over channels.

        Args:
            batches: of the stage.
            device: of the teacher.
        """
        tokens = []
        for batch in batches:
            for pixels in (batch.get("pixel_values"), batch.get("pixel_values_videos")):
                if pixels is not None:
                    blocks = self._encode_teacher_blocks(pixels.to(device), [1] * len(pixels))
                    tokens += [block.flatten(0, -2) for block in blocks]
        self.variance.fill_(torch.cat(tokens).var(0).mean().clamp(min=1e-12).item())


__all__ = ["TokenDistiller", "TokenMap", "get_step_blocks", "split_blocks"]
