"""VisualFeatures, the part of PVCModel that turns frames into visual tokens.

Clips pass through tower and compressor; image tokens are then put into the order of the language model. Placing the
tokens in a prompt is in `placeholders.py`. Called by `modeling.py`, the engine and training.

B batch, Q sequence length, C clips, F stored frames, S frame size, T steps, K tokens per frame, L language width.
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
    """Mixin of PVCModel that encodes images, videos and live frames.

    Attributes:
        config: configuration of the model.
        vision_tower: the tower.
        multi_modal_projector: the compressor.
        training: whether the model is in training mode.
    """

    config: PVCConfig
    vision_tower: PVCVisionModel
    multi_modal_projector: PVCMultiModalProjector
    training: bool

    def encode_clips(
        self, pixel_values: torch.Tensor | None = None, **options: Any
    ) -> tuple[list[torch.Tensor], PVCVisionOutput]:
        """Encode clips to visual tokens.

        Args:
            pixel_values: `(F, 3, S, S)` frames of all clips, cast to the tower's dtype; None with `frame_features`.
            **options: those of `PVCVisionModel.forward`: `frames`, `steps`, `repeats`, `cache`, `use_cache`,
                `total_steps`, `window`, `step_offset`, and `frame_features` in place of the pixels.

        Returns:
            One `(T, K, L)` tensor of visual tokens per clip, and the output of the tower.

        Raises:
            MismatchError, UsageError: as in `PVCVisionModel.forward`.
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
        """Encode the next frames of one video.

        Args:
            pixel_values: `(F, 3, S, S)` frames.
            cache: the cache of the previous call, or None at the start.
            total_steps: steps of the whole video; required if timesteps are relative.
            repeats: `(F,)` consecutive steps of each frame; by default 1 each.
            window: replaces `temporal_window` of the config, in this call and in all calls that continue it.

        Returns:
            `(T, K, L)` visual tokens, where T is F or the sum of `repeats`, and the cache for the next call.

        Raises:
            MismatchError, UsageError: as in `PVCVisionModel.forward`.
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
        """Encode images to visual tokens.

        Args:
            pixel_values: `(sum of tiles, 3, S, S)`.
            image_grid_thw: `(images, 3)` int64, rows `[tiles, 1, 1]`; by default every tile is an image.
            image_steps: `(sum of tiles,)` or one number, equal within an image; by default `config.image_steps`.
            **kwargs: other options of `encode_clips`.

        Returns:
            `.pooler_output`: one `(steps * tiles * K, L)` tensor per image, in the order of `config.image_token_order`.

        Raises:
            MismatchError: tiles, grid and steps do not agree.
            UsageError: the number of steps is below 1 or above the temporal window.
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
        """Encode videos to visual tokens.

        Args:
            pixel_values_videos: `(sum of frames, 3, S, S)`.
            video_grid_thw: `(videos, 3)` int64, rows `[frames, 1, 1]`; by default all frames are one video.
            **kwargs: other options of `encode_clips`, such as `step_offset`: `(videos,)` int64, the number of each
                video's first step, by default 0.

        Returns:
            `.pooler_output`: one `(frames * K, L)` tensor per video.

        Raises:
            MismatchError: frames and grid do not agree.
            UsageError: an option is not possible, as in `PVCVisionModel.forward`.
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
        """Encode the images and videos of a batch in one pass through tower and compressor.

        If weights are sharded over processes, every process must call every layer equally often. One pass for both
        kinds ensures this, whatever media each process has in its batch.

        Args:
            pixel_values: tiles, as in `get_image_features`; None without images.
            image_grid_thw: as in `get_image_features`.
            image_steps: as in `get_image_features`.
            pixel_values_videos: frames, as in `get_video_features`; None without videos.
            video_grid_thw: as in `get_video_features`.
            step_offset: as in `get_video_features`.

        Returns:
            Outputs under `"image"` and `"video"`, without the kinds that the batch lacks. `.pooler_output` has one
            `(tokens, L)` tensor per image or video.

        Raises:
            MismatchError, UsageError: as in `get_image_features` and `get_video_features`.
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
        """Connect tower and compressor to the graph of a batch without media, where training requires it.

        Otherwise their parameters would have no gradients on this process only. DDP would then stop or hang, and some
        processes would gather sharded weights while others do not. One frame of zeros passes through every layer, and
        an empty slice of its tokens joins the graph. Values are unchanged, and the gradients are zero.

        Args:
            embeddings: `(B, Q, L)`.

        Returns:
            Embeddings of the same shape and values.
        """
        if not self._needs_empty_pass(embeddings.shape[1]):
            return embeddings
        side_y, side_x = self.config.vision_config.image_size
        pixels = embeddings.new_zeros(1, 3, side_y, side_x)
        clips, _ = self.encode_clips(pixels, frames=[1])
        return embeddings + clips[0][:0].sum().to(embeddings.dtype)

    def _needs_empty_pass(self, length: int) -> bool:
        """Check whether tower and compressor must run for a batch without media, of sequences of this length."""
        parts = (self.vision_tower, self.multi_modal_projector)
        if self.training and torch.is_grad_enabled():
            return is_distributed() or any(p.requires_grad for part in parts for p in part.parameters())
        # A sequence of one id is a decode step: every process has already run its prompt.
        return length > 1 and any(is_sharded(p) for part in parts for p in part.parameters())


def is_distributed() -> bool:
    """Check whether this process is one of several that train together."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def is_sharded(parameter: torch.Tensor) -> bool:
    """Check whether a parameter is sharded over processes: a DTensor (FSDP2), or under DeepSpeed ZeRO-3."""
    return hasattr(parameter, "ds_id") or hasattr(parameter, "full_tensor")


__all__ = ["VisualFeatures", "is_distributed", "is_sharded"]
