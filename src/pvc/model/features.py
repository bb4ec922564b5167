"""Frames to visual tokens: clips through tower and compressor, and their order for the language model.

The part of PVCModel that images, videos and live frames share. Leaves out where the tokens go (`placeholders.py`).

F stored frames, S frame size, T steps, K tokens per frame, L language width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers.modeling_outputs import BaseModelOutputWithPooling

from pvc.model.cache import TemporalCache
from pvc.model.compressor import PVCMultiModalProjector
from pvc.model.config import PVCConfig
from pvc.model.inputs import clip_sizes, steps_of_tiles
from pvc.model.vision import PVCVisionModel, PVCVisionOutput


class VisualFeatures:
    """Mixin of PVCModel; expects its `config`, `vision_tower` and `multi_modal_projector`."""

    config: PVCConfig
    vision_tower: PVCVisionModel
    multi_modal_projector: PVCMultiModalProjector

    def encode_clips(
        self, pixel_values: torch.Tensor | None = None, **options: Any
    ) -> tuple[list[torch.Tensor], PVCVisionOutput]:
        """`(F, 3, S, S)` frames to one `(T, K, L)` tensor of visual tokens per clip, and the tower's output.

        `options` are those of `PVCVisionModel.forward`: `frames`, `steps`, `repeats`, `cache`, `use_cache`,
        `total_steps`, `window`, and `stored` in place of the pixels.
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
            `.pooler_output`: one `(steps * tiles * K, L)` tensor per image, step-major (all tiles at step 0, ...).

        Raises:
            MismatchError: tiles, grid and steps do not agree.
            UsageError: fewer than one step, or more than the temporal window holds.
        """
        tiles = clip_sizes(image_grid_thw, len(pixel_values), "tiles", default=[1] * len(pixel_values))
        steps = steps_of_tiles(image_steps, tiles, self.config)
        clips, outputs = self.encode_clips(pixel_values, frames=[1] * len(pixel_values), steps=steps, **kwargs)
        images, start = [], 0
        for count in tiles:
            images.append(torch.stack(clips[start : start + count], dim=1).flatten(0, 2))
            start += count
        return BaseModelOutputWithPooling(last_hidden_state=outputs.last_hidden_state, pooler_output=images)

    def get_video_features(
        self, pixel_values_videos: torch.Tensor, video_grid_thw: torch.Tensor | None = None, **kwargs: Any
    ) -> BaseModelOutputWithPooling:
        """Visual tokens of videos: `(sum of frames, 3, S, S)` to one `(frames * K, L)` tensor per video.

        `video_grid_thw` is `(videos, 3)` with rows `[frames, 1, 1]`; by default all frames are one video.
        """
        stored = len(pixel_values_videos)
        frames = clip_sizes(video_grid_thw, stored, "frames", default=[stored])
        clips, outputs = self.encode_clips(pixel_values_videos, frames=frames, **kwargs)
        return BaseModelOutputWithPooling(
            last_hidden_state=outputs.last_hidden_state, pooler_output=[clip.flatten(0, 1) for clip in clips]
        )


__all__ = ["VisualFeatures"]
