"""The progressive vision tower: InternVL's layers, where the last ones are preceded by a temporal block.

Layers below the first temporal layer run once per stored frame; a static frame is repeated before that layer.
Compression to visual tokens is in `compressor.py`. Called by `features.py` and `modeling.py`.

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
        last_hidden_state: `(R, N, D)` in the order of `layout`; `layout.split` returns one `(T, N, D)` per clip.
        hidden_states: as in transformers, when requested. They have F rows below the first temporal layer, R above.
        attentions: weights of spatial attention, when requested, with F or R rows as `hidden_states`.
        conditioning: the timestep embeddings (`Conditioning`), also used by the compressor.
        layout: the rows of each clip's steps (`ClipLayout`).
        cache: the temporal cache after this call, if `use_cache` is set (`TemporalCache`).
    """

    last_hidden_state: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None
    conditioning: Any = None
    layout: Any = None
    cache: Any = None


class PVCVisionLayer(InternVLVisionLayer):
    """One layer: a temporal block (in the last layers), then InternVL's layer unchanged.

    Args:
        config: configuration of the tower.
        temporal: whether the layer has a temporal block.
    """

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
        """Run the temporal block, if there is one, and the spatial layer.

        Args:
            hidden_states: `(F, N, D)` below the first temporal layer, else `(R, N, D)`.
            conditioning: timestep embeddings; without them the temporal block is skipped.
            layout: the rows of each clip's steps; required with `conditioning`.
            past: keys and values of past steps, or None.
            use_cache: return the keys and values of the temporal block.

        Returns:
            Hidden states of the same shape, and the keys and values or None.
        """
        present = None
        if self.temporal is not None and conditioning is not None:
            assert layout is not None
            added, present = self.temporal(hidden_states, conditioning, layout, past, use_cache)
            hidden_states = hidden_states + added
        return super().forward(hidden_states), present


class PVCVisionEncoder(nn.Module):
    """The stack of layers, in which stored frames become steps of clips.

    Args:
        config: configuration of the tower.
    """

    def __init__(self, config: PVCVisionConfig) -> None:
        super().__init__()
        self.config = config
        self.first_temporal = config.first_temporal_layer
        self.layer = nn.ModuleList(
            PVCVisionLayer(config, temporal=index >= self.first_temporal) for index in range(config.num_hidden_layers)
        )
        self.gradient_checkpointing = False

    def first_active(self) -> int:
        """Return the index of the first layer whose temporal block runs.

        In inference, leading temporal blocks that are the identity are skipped, and static frames share their layers.
        Weights are checked in every call, because some changes of weights cannot be detected otherwise.
        """
        first = self.first_temporal
        if self.training or torch.is_grad_enabled() or torch.compiler.is_compiling():
            return first
        layers: list[Any] = list(self.layer)
        while first < len(layers) and is_zero(layers[first].temporal.attention.projection_layer):
            first += 1
        return first

    def lower_layers(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Run the layers below the first temporal layer on stored frames, `(F, N, D)` to the same shape."""
        for layer in self.layer[: self.first_temporal]:
            hidden_states, _ = layer(hidden_states)
        return hidden_states

    def forward(
        self,
        frame_features: torch.Tensor,
        conditioning: Conditioning,
        layout: ClipLayout,
        cache: TemporalCache | None = None,
        use_cache: bool = False,
    ) -> tuple[torch.Tensor, list[KeyValue]]:
        """Run the layers from the first temporal layer on.

        Args:
            frame_features: `(F, N, D)`, as `lower_layers` returns them.
            conditioning: timestep embeddings of the packed rows.
            layout: the rows of each clip's steps.
            cache: the temporal cache of the clips' past steps, or None.
            use_cache: return keys and values.

        Returns:
            `(R, N, D)` packed steps, and keys and values of the active temporal layers (empty without `use_cache`).
        """
        presents: list[KeyValue] = []
        first = self.first_active()
        for layer in self.layer[self.first_temporal : first]:
            frame_features, _ = layer(frame_features)
        hidden_states = layout.gather(frame_features)
        for index, layer in enumerate(self.layer[first:]):
            past = (cache.keys[index], cache.values[index]) if cache is not None else None
            hidden_states, present = layer(hidden_states, conditioning, layout, past, use_cache)
            if present is not None:
                presents.append(present)
        return hidden_states, presents


class PVCVisionPreTrainedModel(InternVLVisionPreTrainedModel):
    """Base class of the tower: initialisation and the settings that transformers reads."""

    config: PVCVisionConfig
    config_class = PVCVisionConfig
    base_model_prefix = "pvc_vision"
    _no_split_modules = ["PVCVisionLayer"]
    # Without a mask, flex attention ignores is_causal, and steps would silently see the future.
    _supports_flex_attn = False
    _keep_in_fp32_modules_strict = ["modulation", "timestep_embedding"]
    _can_record_outputs = {"hidden_states": PVCVisionLayer, "attentions": InternVLVisionAttention}

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        init_linear(module)


class PVCVisionModel(PVCVisionPreTrainedModel):
    """The vision tower, from frames to hidden states of every step of every clip.

    Args:
        config: configuration of the tower.
    """

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
        """Return the patch embedding."""
        return self.embeddings.patch_embeddings

    @property
    def num_active_temporal_layers(self) -> int:
        """Number of temporal layers that inference runs and a cache holds; leading identities are skipped."""
        with torch.no_grad():
            return len(self.encoder.layer) - self.encoder.first_active()

    def encode_spatial(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Embed `(F, 3, S, S)` frames and run the layers below the first temporal layer; returns `(F, N, D)`."""
        return self.encoder.lower_layers(self.embeddings(pixel_values))

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
        frame_features: torch.Tensor | None = None,
        step_offset: Sequence[int] | torch.Tensor | None = None,
        **kwargs: Any,
    ) -> PVCVisionOutput:
        """Encode clips.

        Args:
            pixel_values: `(F, 3, S, S)`, the stored frames of all clips, one clip after another.
            frames: `(C,)` stored frames of every clip, F in total; by default each frame is a clip.
            steps: `(C,)` steps of every clip; by default one per frame. A clip of one frame may have more.
            repeats: `(F,)` consecutive steps of each frame. Equal neighbours of a video are stored once, and share the
                layers below the first temporal layer as a static clip does.
            cache: the cache that an earlier call returned for the same clips. Their next steps are encoded.
            use_cache: return the cache after this call.
            total_steps: steps of the whole clips; required to encode in pieces if timesteps are relative.
            window: number of steps to attend to, in place of `config.temporal_window`.
            frame_features: `(F, N, D)`, the result of `encode_spatial`, in place of `pixel_values`. It allows more
                steps of the same frames without encoding them again.
            step_offset: `(C,)` integers, the number of every clip's first step; by default 0. With a cache, the
                offset of the call that began the clips is used.
            **kwargs: `output_hidden_states`, `output_attentions` and other options of transformers' models.

        Returns:
            Hidden states of all steps, their conditioning and layout, and the cache if `use_cache` is set.

        Raises:
            MismatchError: counts do not agree; the message names both.
            UsageError: clips of different lengths with a cache; relative timesteps in pieces without `total_steps`, or
                with an offset; an offset with a cache; both pixels and features, or neither.
        """
        inputs = pixel_values if frame_features is None else frame_features
        if inputs is None or (pixel_values is not None and frame_features is not None):
            raise UsageError("pass exactly one of pixel_values and frame_features")
        layout = self._layout(len(inputs), frames, steps, repeats, cache, use_cache, total_steps, window, step_offset)
        timesteps, index = get_timesteps(layout, self.config, inputs.device)
        conditioning = Conditioning(self.timestep_embedding(timesteps), index)
        # The features have no name here, so that their memory is freed after the first temporal layer.
        hidden, presents = self.encoder(
            self.encode_spatial(inputs) if frame_features is None else frame_features,
            conditioning,
            layout,
            cache,
            use_cache,
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
        """Check the arguments of `forward` for `stored` frames, and lay out the clips."""
        window = self.config.temporal_window if window is None else window
        if window is not None and window < 1:
            raise UsageError(f"the temporal window must be at least 1, not {window}")
        frames = [1] * stored if frames is None else list(frames)
        steps = frames if steps is None else list(steps)
        if sum(frames) != stored:
            raise MismatchError(f"the clips have {sum(frames)} frames together, but {stored} frames were passed")
        offset, starts = 0, () if step_offset is None else tuple(int(start) for start in step_offset)
        if any(starts) and (cache is not None or self.config.timestep == "relative"):
            relative = "timesteps are relative (step / total)"
            reason = relative if cache is None else "a cache continues at its last step"
            raise UsageError(f"step_offset cannot be used here: {reason}")
        if cache is not None or use_cache:
            if len(set(steps)) != 1:
                raise UsageError(f"with a cache, all clips of a call must have equally many steps, not {steps}")
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
        """Build the cache after a call from its keys and values."""
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
