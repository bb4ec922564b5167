"""The tower the published way, on a model's own weights: what `benchmarks/vision.py` measures ours against.

Every copy of a picture goes through every layer; the time axis is moved by copying, forth and back in every temporal
block; AdaLN's modulation is computed for every row. Attention is torch's fused one, so this is a strong version of it.

R rows (copies or frames), T steps of each clip, N positions, D width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from transformers.models.internvl.modeling_internvl import InternVLVisionLayer

from pvc.model.compressor import pixel_shuffle
from pvc.model.modeling import PVCModel
from pvc.model.temporal import AdaptiveLayerNorm


class Published:
    """`encode`: `(R, 3, S, S)` frames of clips of `steps` each, one clip after another, to `(R, K, L)` tokens."""

    def __init__(self, model: PVCModel) -> None:
        self.model = model
        self.tower = model.vision_tower
        self.config = model.config.vision_config

    @torch.inference_mode()
    def encode(self, pixels: torch.Tensor, steps: int) -> torch.Tensor:
        tower = self.tower
        numbers = torch.arange(len(pixels)) % steps
        timesteps = numbers / steps if self.config.timestep == "relative" else numbers
        if self.config.timestep == "index" and self.config.timestep_limit is not None:
            timesteps = timesteps.clamp(max=self.config.timestep_limit)
        embedding = tower.timestep_embedding(timesteps.to(pixels.device, torch.float64))
        hidden = tower.embeddings(pixels.to(tower.dtype))
        for layer in tower.encoder.layer:
            if layer.temporal is not None:
                hidden = hidden + self._temporal(layer.temporal, hidden, embedding, steps)
            hidden = InternVLVisionLayer.forward(layer, hidden)
        hidden = tower.layernorm(hidden)
        projector = self.model.multi_modal_projector
        tokens = self._modulated(projector.norm, pixel_shuffle(hidden[:, 1:], projector.factor), embedding)
        return projector.linear_2(projector.act(projector.linear_1(tokens)))

    @staticmethod
    def _modulated(norm: AdaptiveLayerNorm, hidden: torch.Tensor, embedding: torch.Tensor) -> torch.Tensor:
        weight = norm.modulation.weight
        modulation = norm.modulation(F.silu(embedding.to(weight.dtype))).to(hidden.dtype)
        scale, shift = modulation.chunk(2, dim=-1)
        normed = F.layer_norm(hidden, (norm.width,), eps=norm.eps)
        return normed * (1 + scale.unsqueeze(1)) + shift.unsqueeze(1)

    def _temporal(
        self, block: torch.nn.Module, hidden: torch.Tensor, embedding: torch.Tensor, steps: int
    ) -> torch.Tensor:
        normed = self._modulated(block.norm, hidden, embedding)
        rows, positions, width = normed.shape
        moved = normed.view(-1, steps, positions, width).transpose(1, 2).reshape(-1, steps, width)
        attention = block.attention
        heads = [
            linear(moved).view(-1, steps, attention.num_heads, attention.head_dim).transpose(1, 2)
            for linear in (attention.q_proj, attention.k_proj, attention.v_proj)
        ]
        parts = [
            F.scaled_dot_product_attention(*part, is_causal=True)
            for part in zip(*(tensor.split(65_535) for tensor in heads), strict=True)
        ]
        attended = torch.cat(parts).transpose(1, 2).reshape(-1, steps, width)
        out = attention.projection_layer(attended)
        return out.view(-1, positions, steps, width).transpose(1, 2).reshape(rows, positions, width)


__all__ = ["Published"]
