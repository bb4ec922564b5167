"""PVCModel and PVCForConditionalGeneration, composed of tower, compressor and language model.

Attention is in `temporal.py` and `vision.py`, visual tokens in `features.py`, placeholders in `placeholders.py`.
Called by checkpoint loading, conversion, training and benchmarks.

B batch, Q sequence length, L language width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import AutoModel, Cache, GenerationMixin
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.models.internvl.modeling_internvl import (
    InternVLCausalLMOutputWithPast,
    InternVLModelOutputWithPast,
)
from transformers.utils.generic import can_return_tuple

from pvc.model.compressor import PVCMultiModalProjector
from pvc.model.config import PVCConfig
from pvc.model.features import VisualFeatures
from pvc.model.inputs import TEMPORAL_CACHE, check_inputs
from pvc.model.placeholders import place_media
from pvc.model.pretrained import PVCPreTrainedModel
from pvc.model.vision import PVCVisionModel


class PVCModel(VisualFeatures, PVCPreTrainedModel):
    """Vision tower, compressor and language model without its output layer."""

    def __init__(self, config: PVCConfig) -> None:
        super().__init__(config)
        self.vision_tower = PVCVisionModel._from_config(config.vision_config)
        self.multi_modal_projector = PVCMultiModalProjector(config)
        self.language_model = AutoModel.from_config(config.text_config)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """Return the input embedding of the language model."""
        return self.language_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the input embedding of the language model."""
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
        """Compute the hidden states of a batch.

        Args:
            input_ids: `(B, Q)` int64 ids, with one placeholder for each visual token.
            pixel_values: tiles of images, as in `get_image_features`.
            image_grid_thw: as in `get_image_features`.
            image_steps: as in `get_image_features`.
            pixel_values_videos: frames of videos, as in `get_video_features`.
            video_grid_thw: as in `get_video_features`.
            step_offset: as in `get_video_features`.
            attention_mask: passed to the language model.
            position_ids: passed to the language model.
            past_key_values: older name of `cache`.
            cache: the KV cache.
            inputs_embeds: `(B, Q, L)` embeddings in place of `input_ids`.
            mm_encoder_outputs: results of these two methods under "image" and "video", in place of pixels.
            **kwargs: passed to the language model.

        Raises:
            MismatchError: media, steps and placeholders do not agree; the message names both numbers.
            UsageError: an input is missing, or passed twice.
        """
        encoded = dict(mm_encoder_outputs or {})
        check_inputs(input_ids, inputs_embeds, {"image": pixel_values, "video": pixel_values_videos}, encoded)
        # Embeddings come first in every batch, because sharded weights are gathered in the order of these calls.
        if inputs_embeds is None:
            inputs_embeds = self.get_input_embeddings()(input_ids)
        encoded |= self.encode_media(
            pixel_values, image_grid_thw, image_steps, pixel_values_videos, video_grid_thw, step_offset
        )
        if not encoded:
            inputs_embeds = self.join_empty_pass(inputs_embeds)
        token_ids = {"image": self.config.image_token_id, "video": self.config.video_token_id}
        inputs_embeds = place_media(inputs_embeds, input_ids, encoded, token_ids)
        outputs = self.language_model(
            attention_mask=attention_mask,
            position_ids=position_ids,
            inputs_embeds=inputs_embeds,
            **{TEMPORAL_CACHE: past_key_values if cache is None else cache},
            **kwargs,
        )
        fields = ("last_hidden_state", TEMPORAL_CACHE, "hidden_states", "attentions")
        return InternVLModelOutputWithPast(**{field: outputs.get(field) for field in fields})


class PVCForConditionalGeneration(PVCPreTrainedModel, GenerationMixin):
    """PVCModel with the output layer of the language model: the class to train, save and generate with."""

    _tied_weights_keys = {"lm_head.weight": "model.language_model.embed_tokens.weight"}

    def __init__(self, config: PVCConfig) -> None:
        super().__init__(config)
        self.model = PVCModel(config)
        self.lm_head = nn.Linear(config.text_config.hidden_size, config.text_config.vocab_size, bias=False)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """Return the input embedding of the language model."""
        return self.model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the input embedding of the language model."""
        self.model.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module:
        """Return the output layer."""
        return self.lm_head

    def get_image_features(self, pixel_values: torch.Tensor, **kwargs: Any) -> BaseModelOutputWithPooling:
        """Encode images; see `PVCModel.get_image_features`."""
        return self.model.get_image_features(pixel_values, **kwargs)

    def get_video_features(self, pixel_values_videos: torch.Tensor, **kwargs: Any) -> BaseModelOutputWithPooling:
        """Encode videos; see `PVCModel.get_video_features`."""
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
        """Compute logits, `(B, Q, vocabulary)` or the last `logits_to_keep` positions, and with `labels` the loss.

        The other arguments are those of `PVCModel.forward`, listed here because `generate` inspects this signature.
        """
        loss_kwargs = {key: kwargs.pop(key) for key in ("num_items_in_batch",) if key in kwargs}
        if labels is not None:
            # Without a KV cache, transformers separates the samples of packed rows.
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
