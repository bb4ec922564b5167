"""PVCModel and PVCForConditionalGeneration: tower, compressor and language model put together.

Composition only: attention is in `temporal.py` and `vision.py`, visual tokens in `features.py`, placeholder
accounting in `placeholders.py`.

B batch, Q sequence length, L language width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import AutoModel, Cache, GenerationMixin, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.models.internvl.modeling_internvl import (
    InternVLCausalLMOutputWithPast,
    InternVLModelOutputWithPast,
)
from transformers.utils.generic import can_return_tuple

from pvc.errors import UsageError
from pvc.model.compressor import PVCMultiModalProjector
from pvc.model.config import PVCConfig
from pvc.model.features import VisualFeatures
from pvc.model.inputs import TEMPORAL_CACHE
from pvc.model.linear import init_linear
from pvc.model.placeholders import place_features
from pvc.model.vision import PVCVisionModel


class PVCPreTrainedModel(PreTrainedModel):
    """Initialisation and what transformers wants to know about the whole model."""

    config: PVCConfig
    config_class = PVCConfig
    base_model_prefix = "model"
    input_modalities = ("image", "text", "video")
    supports_gradient_checkpointing = True
    _skip_keys_device_placement = ["past_key_values", "cache"]
    _supports_flash_attn = True
    _supports_sdpa = True
    _supports_flex_attn = False  # see PVCVisionPreTrainedModel
    _supports_attention_backend = True
    _keep_in_fp32_modules_strict = ["modulation", "timestep_embedding"]  # see Float32Linear

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        init_linear(module)


class PVCModel(VisualFeatures, PVCPreTrainedModel):
    """Vision tower, compressor and language model without its output layer."""

    def __init__(self, config: PVCConfig) -> None:
        super().__init__(config)
        self.vision_tower = PVCVisionModel._from_config(config.vision_config)
        self.multi_modal_projector = PVCMultiModalProjector(config)
        self.language_model = AutoModel.from_config(config.text_config)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.language_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.language_model.set_input_embeddings(value)

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        image_grid_thw: torch.Tensor | None = None,
        image_steps: torch.Tensor | int | None = None,
        pixel_values_videos: torch.Tensor | None = None,
        video_grid_thw: torch.Tensor | None = None,
        step_offset: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        cache: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        mm_encoder_outputs: dict[str, BaseModelOutputWithPooling] | None = None,
        **kwargs: Any,
    ) -> InternVLModelOutputWithPast:
        """`(B, Q)` ids and pixels (or `mm_encoder_outputs`, features made before) to `(B, Q, L)` hidden states."""
        if (input_ids is None) == (inputs_embeds is None):
            raise UsageError("pass exactly one of input_ids and inputs_embeds")
        encoded = dict(mm_encoder_outputs or {})
        for kind, pixels in (("image", pixel_values), ("video", pixel_values_videos)):
            if pixels is not None and encoded.get(kind) is not None:
                raise UsageError(f"pass pixels or mm_encoder_outputs for {kind}s, not both")
        # Embeddings first, whatever is in the batch: sharded weights are gathered in the order of these calls.
        if inputs_embeds is None:
            inputs_embeds = self.get_input_embeddings()(input_ids)
        encoded |= self.encode_media(
            pixel_values, image_grid_thw, image_steps, pixel_values_videos, video_grid_thw, step_offset
        )
        if not encoded:
            inputs_embeds = self.join_empty_pass(inputs_embeds)
        for kind, token_id in (("image", self.config.image_token_id), ("video", self.config.video_token_id)):
            output = encoded.get(kind)
            features = None if output is None else output.pooler_output
            inputs_embeds = place_features(inputs_embeds, input_ids, features, token_id, kind)
        outputs = self.language_model(
            attention_mask=attention_mask,
            position_ids=position_ids,
            inputs_embeds=inputs_embeds,
            **{TEMPORAL_CACHE: past_key_values if cache is None else cache},
            **kwargs,
        )
        return InternVLModelOutputWithPast(
            last_hidden_state=outputs.last_hidden_state,
            **{TEMPORAL_CACHE: outputs.get(TEMPORAL_CACHE)},
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )


class PVCForConditionalGeneration(PVCPreTrainedModel, GenerationMixin):
    """PVCModel with the language model's output layer: what is trained, saved and generates."""

    _tied_weights_keys = {"lm_head.weight": "model.language_model.embed_tokens.weight"}

    def __init__(self, config: PVCConfig) -> None:
        super().__init__(config)
        self.model = PVCModel(config)
        self.lm_head = nn.Linear(config.text_config.hidden_size, config.text_config.vocab_size, bias=False)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.model.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module:
        return self.lm_head

    def get_image_features(self, pixel_values: torch.Tensor, **kwargs: Any) -> BaseModelOutputWithPooling:
        """See `PVCModel.get_image_features`."""
        return self.model.get_image_features(pixel_values, **kwargs)

    def get_video_features(self, pixel_values_videos: torch.Tensor, **kwargs: Any) -> BaseModelOutputWithPooling:
        """See `PVCModel.get_video_features`."""
        return self.model.get_video_features(pixel_values_videos, **kwargs)

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        image_grid_thw: torch.Tensor | None = None,
        image_steps: torch.Tensor | int | None = None,
        pixel_values_videos: torch.Tensor | None = None,
        video_grid_thw: torch.Tensor | None = None,
        step_offset: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        cache: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        mm_encoder_outputs: dict[str, BaseModelOutputWithPooling] | None = None,
        labels: torch.Tensor | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        **kwargs: Any,
    ) -> InternVLCausalLMOutputWithPast:
        """Logits `(B, Q, vocabulary)` (of the last `logits_to_keep` positions when set), and the loss with `labels`.

        The inputs are spelled out because `generate` reads them off this signature.
        """
        loss_kwargs = {key: kwargs.pop(key) for key in ("num_items_in_batch",) if key in kwargs}
        if labels is not None:
            # Nothing follows, and transformers keeps the samples of packed rows apart only where nothing is cached.
            kwargs.setdefault("use_cache", False)
        outputs = self.model(
            input_ids=input_ids,
            pixel_values=pixel_values,
            image_grid_thw=image_grid_thw,
            image_steps=image_steps,
            pixel_values_videos=pixel_values_videos,
            video_grid_thw=video_grid_thw,
            step_offset=step_offset,
            attention_mask=attention_mask,
            position_ids=position_ids,
            cache=past_key_values if cache is None else cache,
            inputs_embeds=inputs_embeds,
            mm_encoder_outputs=mm_encoder_outputs,
            **kwargs,
        )
        hidden = outputs.last_hidden_state
        keep = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.lm_head(hidden[:, keep])
        loss = None
        if labels is not None:
            loss = self.loss_function(logits, labels, vocab_size=self.config.text_config.vocab_size, **loss_kwargs)
        return InternVLCausalLMOutputWithPast(
            loss=loss,
            logits=logits,
            **{TEMPORAL_CACHE: outputs.get(TEMPORAL_CACHE)},
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )


__all__ = ["PVCForConditionalGeneration", "PVCModel", "PVCPreTrainedModel"]
