"""PVCPreTrainedModel, the base class of the models in `modeling.py`: initialisation and settings for transformers."""

from __future__ import annotations

import torch
from torch import nn
from transformers import PreTrainedModel

from pvc.model.config import PVCConfig
from pvc.model.linear import init_linear


class PVCPreTrainedModel(PreTrainedModel):
    """Base class of the models: initialisation and the settings that transformers reads."""

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


__all__ = ["PVCPreTrainedModel"]
