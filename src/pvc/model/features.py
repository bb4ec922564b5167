"""Frames to visual tokens: clips through tower and compressor, and their order for the language model.

The part of PVCModel that images, videos and live frames share. Leaves out where the tokens go (`placeholders.py`).

F stored frames, S frame size, T steps, K tokens per frame, L language width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from transformers.modeling_outputs import BaseModelOutputWithPooling

from pvc.model.cache import TemporalCache
from pvc.model.compressor import PVCMultiModalProjector
from pvc.model.config import PVCConfig
from pvc.model.inputs import clip_sizes, steps_per_tile
from pvc.model.order import order_image_tokens
from pvc.model.vision import PVCVisionModel, PVCVisionOutput


class VisualFeatures:
    """Mixin of PVCModel; expects its `config`, `vision_tower`, `multi_modal_projector` and `training`."""

    config: PVCConfig
    vision_tower: PVCVisionModel
    multi_modal_projector: PVCMultiModalProjector
    training: bool

    def encode_clips(
        self, pixel_values: torch.Tensor | None = None, **options: Any
    ) -> tuple[list[torch.Tensor], PVCVisionOutput]:
        """`(F, 3, S, S)` frames to one `(T, K, L)` tensor of visual tokens per clip, and the tower's output.

        `options` are those of `PVCVisionModel.forward`: `frames`, `steps`, `repeats`, `cache`, `use_cache`,
        `total_steps`, `window`, `step_offset`, and `stored` in place of the pixels.
        """
        if pixel_values is not None:
            pixel_values = pixel_values.to(self.vision_tower.dtype)
        outputs = self.vision_tower(pixel_values, **options)
        tokens = self.multi_modal_projector(outputs.last_hidden_state, outputs.conditioning)
        return outputs.layout.split(tokens), outputs

    def encode_frames(
        self,
        pixel_values: torch.Tensor,
        cache: TemporalCache | None = None,
        total_steps: int | None = None,
        repeats: Sequence[int] | None = None,
        window: int | None = None,
    ) -> tuple[torch.Tensor, TemporalCache]:
        """The next `(F, 3, S, S)` frames of one video to `(T, K, L)` tokens, and the cache to go on with.

        `T` is `F`, or the sum of `repeats`: frames that are shown for several steps in a row. `window` takes the place
        of the config's `temporal_window`, in this call and all that go on from it.
        """
        stored = len(pixel_values)
        tokens, outputs = self.encode_clips(
            pixel_values,
            frames=[stored],
            steps=None if repeats is None else [sum(repeats)],
            repeats=repeats,
            cache=cache,
            use_cache=True,
            total_steps=total_steps,
            window=window,
        )
        return tokens[0], outputs.cache

    def get_image_features(
        self,
        pixel_values: torch.Tensor,
        image_grid_thw: torch.Tensor | None = None,
        image_steps: torch.Tensor | int | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPooling:
        """Visual tokens of images.

        Args:
            pixel_values: `(sum of tiles, 3, S, S)`.
            image_grid_thw: `(images, 3)`, rows `[tiles, 1, 1]`; by default every tile is an image.
            image_steps: `(sum of tiles,)` or one number; by default the config's. Equal within an image.

        Returns:
            `.pooler_output`: one `(steps * tiles * K, L)` tensor per image, in the order of `config.image_token_order`.

        Raises:
            MismatchError: tiles, grid and steps do not agree.
            UsageError: fewer than one step, or more than the temporal window holds.
        """
        tiles = clip_sizes(image_grid_thw, len(pixel_values), "tiles", default=[1] * len(pixel_values))
        steps = steps_per_tile(image_steps, tiles, self.config)
        clips, outputs = self.encode_clips(pixel_values, frames=[1] * len(pixel_values), steps=steps, **kwargs)
        return BaseModelOutputWithPooling(
            last_hidden_state=outputs.last_hidden_state,
            pooler_output=order_image_tokens(clips, tiles, self.config),
        )

    def get_video_features(
        self, pixel_values_videos: torch.Tensor, video_grid_thw: torch.Tensor | None = None, **kwargs: Any
    ) -> BaseModelOutputWithPooling:
        """Visual tokens of videos: `(sum of frames, 3, S, S)` to one `(frames * K, L)` tensor per video.

        `video_grid_thw` is `(videos, 3)` with rows `[frames, 1, 1]`; by default all frames are one video.
        `step_offset`, int64 `(videos,)`, is the number of each video's first step; by default 0.
        """
        stored = len(pixel_values_videos)
        frames = clip_sizes(video_grid_thw, stored, "frames", default=[stored])
        clips, outputs = self.encode_clips(pixel_values_videos, frames=frames, **kwargs)
        return BaseModelOutputWithPooling(
            last_hidden_state=outputs.last_hidden_state, pooler_output=[clip.flatten(0, 1) for clip in clips]
        )

    def encode_media(
        self,
        pixel_values: torch.Tensor | None = None,
        image_grid_thw: torch.Tensor | None = None,
        image_steps: torch.Tensor | int | None = None,
        pixel_values_videos: torch.Tensor | None = None,
        video_grid_thw: torch.Tensor | None = None,
        step_offset: torch.Tensor | None = None,
    ) -> dict[str, BaseModelOutputWithPooling]:
        """Encode a batch's images and videos in one pass through tower and compressor.

        Where weights are spread over processes, every process must call every layer equally often. One pass for all
        kinds keeps this true whatever each process has in its batch.

        Args:
            pixel_values, image_grid_thw, image_steps: as `get_image_features` takes them; None without images.
            pixel_values_videos, video_grid_thw, step_offset: as `get_video_features` takes them; None without videos.

        Returns:
            `"image"` and `"video"`, where there are any; `.pooler_output` has one `(tokens, L)` tensor per item.

        Raises:
            MismatchError, UsageError: as the two methods above do.
        """
        if pixel_values is None or pixel_values_videos is None:
            if pixel_values is not None:
                return {"image": self.get_image_features(pixel_values, image_grid_thw, image_steps)}
            if pixel_values_videos is not None:
                return {"video": self.get_video_features(pixel_values_videos, video_grid_thw, step_offset=step_offset)}
            return {}
        tiles = clip_sizes(image_grid_thw, len(pixel_values), "tiles", default=[1] * len(pixel_values))
        stored = len(pixel_values_videos)
        frames = clip_sizes(video_grid_thw, stored, "frames", default=[stored])
        steps = steps_per_tile(image_steps, tiles, self.config)
        clips, _ = self.encode_clips(
            torch.cat((pixel_values, pixel_values_videos)),
            frames=[1] * len(pixel_values) + frames,
            steps=steps + frames,
            step_offset=None if step_offset is None else [0] * len(pixel_values) + step_offset.tolist(),
        )
        images = order_image_tokens(clips[: len(pixel_values)], tiles, self.config)
        videos = [clip.flatten(0, 1) for clip in clips[len(pixel_values) :]]
        return {
            "image": BaseModelOutputWithPooling(pooler_output=images),
            "video": BaseModelOutputWithPooling(pooler_output=videos),
        }

    def join_empty_pass(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Add nothing to `(B, Q, L)` embeddings, by way of tower and compressor where training needs them to take part.

        A batch of text alone would leave their parameters without gradients on this process only. DDP then stops or
        hangs, and sharded weights are gathered by some processes and not by others. One frame of zeros goes through
        every layer here, and an empty slice of its tokens joins the graph: the value is unchanged, gradients are zero.
        """
        if not self._must_take_part(embeddings.shape[1]):
            return embeddings
        side_y, side_x = self.config.vision_config.image_size
        pixels = embeddings.new_zeros(1, 3, side_y, side_x)
        clips, _ = self.encode_clips(pixels, frames=[1])
        return embeddings + clips[0][:0].sum().to(embeddings.dtype)

    def _must_take_part(self, length: int) -> bool:
        parts = (self.vision_tower, self.multi_modal_projector)
        if self.training and torch.is_grad_enabled():
            return in_several_processes() or any(p.requires_grad for part in parts for p in part.parameters())
        # One id at a time is generation: every process is past its prompt there.
        return length > 1 and any(is_sharded(p) for part in parts for p in part.parameters())


def in_several_processes() -> bool:
    """Whether this is one of several processes that train together."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def is_sharded(parameter: torch.Tensor) -> bool:
    """Whether a parameter is spread over processes: a DTensor (FSDP2), or under DeepSpeed ZeRO-3."""
    return hasattr(parameter, "ds_id") or hasattr(parameter, "full_tensor")


__all__ = ["VisualFeatures", "in_several_processes", "is_sharded"]
