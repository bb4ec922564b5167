"""The progressive vision tower: InternVL's layers, the last ones preceded by a temporal block.

Layers below the first temporal one run once per stored frame; a static frame is repeated just before it. Leaves
out compression to visual tokens (`compressor.py`). Called by `modeling.py` and, for live encoding, by the engine.

C clips, F stored frames, T steps, R packed rows (sum of all clips' steps), N = 1 + patches, D width, S frame size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers.modeling_outputs import ModelOutput
from transformers.models.internvl.modeling_internvl import (
    InternVLVisionAttention,
    InternVLVisionEmbeddings,
    InternVLVisionLayer,
    InternVLVisionPreTrainedModel,
)
from transformers.utils.output_capturing import capture_outputs

from pvc.errors import MismatchError, UsageError
from pvc.model.cache import TemporalCache
from pvc.model.config import PVCVisionConfig
from pvc.model.layout import ClipLayout
from pvc.model.linear import init_linear, is_zero
from pvc.model.temporal import (
    Conditioning,
    KeyValue,
    PVCTemporalBlock,
    TimestepEmbedding,
    get_timesteps,
)


@dataclass
class PVCVisionOutput(ModelOutput):
    """Output of the tower.

    Attributes:
        last_hidden_state: `(R, N, D)`, packed as `layout` says; `layout.split` gives one `(T, N, D)` per clip.
        hidden_states, attentions: as in transformers, when asked for (spatial attention only; below the first
            temporal layer they have `F` rows, above it `R`).
        conditioning: the timestep embeddings that the compressor is conditioned on, too.
        layout: where every clip's steps lie.
        cache: the temporal cache after this call, when `use_cache` was set.
    """

    last_hidden_state: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None
    conditioning: Any = None
    layout: Any = None
    cache: Any = None


class PVCVisionLayer(InternVLVisionLayer):
    """One layer: a temporal block (in the last layers), then InternVL's layer unchanged."""

    def __init__(self, config: PVCVisionConfig, temporal: bool) -> None:
        super().__init__(config)
        self.temporal = PVCTemporalBlock(config) if temporal else None

    def forward(
        self,
        hidden_states: torch.Tensor,
        conditioning: Conditioning | None = None,
        layout: ClipLayout | None = None,
        past: KeyValue | None = None,
        use_cache: bool = False,
    ) -> tuple[torch.Tensor, KeyValue | None]:
        """`(F or R, N, D)` to the same shape, and the block's keys and values when `use_cache` is set.

        Without `conditioning` the temporal block is skipped.
        """
        present = None
        if self.temporal is not None and conditioning is not None:
            assert layout is not None
            added, present = self.temporal(hidden_states, conditioning, layout, past, use_cache)
            hidden_states = hidden_states + added
        return super().forward(hidden_states), present


class PVCVisionEncoder(nn.Module):
    """The stack of layers, with the step from stored frames to clips in it."""

    def __init__(self, config: PVCVisionConfig) -> None:
        super().__init__()
        self.config = config
        self.first_temporal = config.first_temporal_layer
        self.layer = nn.ModuleList(
            PVCVisionLayer(config, temporal=index >= self.first_temporal) for index in range(config.num_hidden_layers)
        )
        self.gradient_checkpointing = False

    def first_active(self) -> int:
        """Return the index of the first layer whose temporal block is used in a call made now.

        In inference, leading temporal blocks that are the identity are skipped, and static frames share their layers,
        too. Weights are looked at in every call: not every way of changing them leaves a trace.
        """
        first = self.first_temporal
        if self.training or torch.is_grad_enabled() or torch.compiler.is_compiling():
            return first
        layers: list[Any] = list(self.layer)
        while first < len(layers) and is_zero(layers[first].temporal.attention.projection_layer):
            first += 1
        return first

    def lower(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """`(F, N, D)` embedded frames to the same shape: the layers that know no time, once per stored frame."""
        for layer in self.layer[: self.first_temporal]:
            hidden_states, _ = layer(hidden_states)
        return hidden_states

    def forward(
        self,
        stored: torch.Tensor,
        conditioning: Conditioning,
        layout: ClipLayout,
        cache: TemporalCache | None = None,
        use_cache: bool = False,
    ) -> tuple[torch.Tensor, list[KeyValue]]:
        """`(F, N, D)` of `lower` to `(R, N, D)` packed steps, and keys and values of the temporal layers in use."""
        presents: list[KeyValue] = []
        first = self.first_active()
        for layer in self.layer[self.first_temporal : first]:
            stored, _ = layer(stored)
        hidden_states = layout.gather(stored)
        for place, layer in enumerate(self.layer[first:]):
            past = (cache.keys[place], cache.values[place]) if cache is not None else None
            hidden_states, present = layer(hidden_states, conditioning, layout, past, use_cache)
            if present is not None:
                presents.append(present)
        return hidden_states, presents


class PVCVisionPreTrainedModel(InternVLVisionPreTrainedModel):
    """Initialisation and what transformers wants to know about the tower."""

    config: PVCVisionConfig
    config_class = PVCVisionConfig
    base_model_prefix = "pvc_vision"
    _no_split_modules = ["PVCVisionLayer"]
    # flex attention ignores is_causal without a mask, which would silently let steps see the future.
    _supports_flex_attn = False
    _keep_in_fp32_modules_strict = ["modulation", "timestep_embedding"]
    _can_record_outputs = {"hidden_states": PVCVisionLayer, "attentions": InternVLVisionAttention}

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        init_linear(module)


class PVCVisionModel(PVCVisionPreTrainedModel):
    """The tower: frames in, hidden states of every step of every clip out."""

    def __init__(self, config: PVCVisionConfig) -> None:
        super().__init__(config)
        self.embeddings = InternVLVisionEmbeddings(config)
        self.timestep_embedding = TimestepEmbedding(config)
        self.encoder = PVCVisionEncoder(config)
        self.layernorm = (
            nn.Identity() if config.use_mean_pooling else nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        )
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.embeddings.patch_embeddings

    @property
    def num_active_temporal_layers(self) -> int:
        """Temporal layers that inference runs and a cache holds: leading ones that are the identity are skipped."""
        with torch.no_grad():
            return len(self.encoder.layer) - self.encoder.first_active()

    def encode_spatial(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """`(F, 3, S, S)` frames to `(F, N, D)`: embedded, and through the layers below the first temporal one."""
        return self.encoder.lower(self.embeddings(pixel_values))

    @capture_outputs(tie_last_hidden_states=False)
    def forward(
        self,
        pixel_values: torch.Tensor | None = None,
        frames: Sequence[int] | None = None,
        steps: Sequence[int] | None = None,
        repeats: Sequence[int] | None = None,
        cache: TemporalCache | None = None,
        use_cache: bool = False,
        total_steps: int | None = None,
        window: int | None = None,
        stored: torch.Tensor | None = None,
        step_offset: Sequence[int] | torch.Tensor | None = None,
        **kwargs: Any,
    ) -> PVCVisionOutput:
        """Encode clips.

        Args:
            pixel_values: `(F, 3, S, S)`, the stored frames of all clips, one clip after another.
            frames: stored frames of every clip, `C` numbers that sum to `F`; by default each frame is a clip.
            steps: steps of every clip; by default as many as it has frames. A clip of one frame may have more.
            repeats: `F` numbers, the steps in a row that show each frame: equal neighbours of a video, stored once,
                share the layers below the first temporal one as a static clip does.
            cache: what an earlier call returned for the same clips; their next steps are encoded.
            use_cache: return the cache after this call.
            total_steps: steps of the whole clips, needed to encode in pieces when timesteps are relative.
            window: attend to so many steps, in place of the config's `temporal_window`.
            stored: in place of `pixel_values`, their `encode_spatial`: more steps of the same frames start from it.
            step_offset: `C` integers, the number of every clip's first step; by default 0. With a cache, that of the
                call that began the clips holds.

        Raises:
            MismatchError: counts that do not agree, with both numbers.
            UsageError: clips of different lengths with a cache; relative timesteps in pieces without `total_steps`, or
                with an offset; an offset for clips that a cache continues; pixels and `stored`, or neither.
        """
        given = pixel_values if stored is None else stored
        if given is None or (pixel_values is not None and stored is not None):
            raise UsageError("pass exactly one of pixel_values and stored")
        layout = self._layout(len(given), frames, steps, repeats, cache, use_cache, total_steps, window, step_offset)
        timesteps, index = get_timesteps(layout, self.config, given.device)
        conditioning = Conditioning(self.timestep_embedding(timesteps), index)
        # Not kept under a name here: it has to go as soon as the first temporal layer is done with it.
        hidden, presents = self.encoder(
            self.encode_spatial(given) if stored is None else stored, conditioning, layout, cache, use_cache
        )
        return PVCVisionOutput(
            last_hidden_state=self.layernorm(hidden),
            conditioning=conditioning,
            layout=layout,
            cache=self._new_cache(presents, layout) if use_cache else None,
        )

    def _layout(
        self,
        stored: int,
        frames: Sequence[int] | None,
        steps: Sequence[int] | None,
        repeats: Sequence[int] | None,
        cache: TemporalCache | None,
        use_cache: bool,
        total_steps: int | None,
        window: int | None,
        step_offset: Sequence[int] | torch.Tensor | None,
    ) -> ClipLayout:
        window = self.config.temporal_window if window is None else window
        if window is not None and window < 1:
            raise UsageError(f"the temporal window must be at least 1, not {window}")
        frames = [1] * stored if frames is None else list(frames)
        steps = frames if steps is None else list(steps)
        if sum(frames) != stored:
            raise MismatchError(f"the clips have {sum(frames)} frames together, but {stored} frames were given")
        offset, starts = 0, () if step_offset is None else tuple(int(start) for start in step_offset)
        if any(starts) and (cache is not None or self.config.timestep == "relative"):
            reason = "a cache goes on where it is" if cache is not None else "timesteps are relative (step / total)"
            raise UsageError(f"step_offset cannot be used here: {reason}")
        if cache is not None or use_cache:
            if len(set(steps)) != 1:
                raise UsageError(f"clips encoded in pieces must have equally many steps per call, not {steps}")
            if cache is not None:
                cache.check(len(frames), len(self.encoder.layer) - self.encoder.first_active(), window, total_steps)
                offset, total_steps, starts = cache.steps, total_steps or cache.total_steps, cache.starts
        if self.config.timestep == "relative":
            if (offset or use_cache) and total_steps is None:
                raise UsageError(
                    "this checkpoint was trained with relative timesteps (step / total): encoding in pieces needs "
                    "total_steps, the number of steps the clip will have"
                )
            if total_steps is not None and offset + max(steps) > total_steps:
                raise MismatchError(f"step {offset + max(steps)} is encoded, but total_steps is {total_steps}")
        return ClipLayout.build(
            frames, steps, repeats=repeats, offset=offset, total_steps=total_steps, window=window, starts=starts
        )

    def _new_cache(self, presents: list[KeyValue], layout: ClipLayout) -> TemporalCache:
        return TemporalCache(
            keys=tuple(key for key, _ in presents),
            values=tuple(value for _, value in presents),
            steps=layout.offset + layout.steps_of_clip[0],
            num_clips=layout.num_clips,
            window=layout.window,
            total_steps=layout.total_steps,
            starts=layout.starts,
        )


__all__ = ["PVCVisionLayer", "PVCVisionModel", "PVCVisionOutput", "PVCVisionPreTrainedModel"]
