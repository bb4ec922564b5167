"""The tower as in the published method, with the weights of a model: the baseline of `benchmarks/vision.py`.

Every copy of a picture passes through every layer. Every temporal block copies the tensor to move the time axis, forth
and back. AdaLN's modulation is computed for every row. Attention is torch's fused one, so the baseline is strong.

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
    """Tower and compressor as in the published method.

    Args:
        model: the model whose weights are used.
    """

    def __init__(self, model: PVCModel) -> None:
        self.model = model
        self.tower = model.vision_tower
        self.config = model.config.vision_config

    @torch.inference_mode()
    def encode(self, pixels: torch.Tensor, steps: int) -> torch.Tensor:
        """Encode clips to visual tokens.

        Args:
            pixels: `(R, 3, S, S)` frames, one clip after another.
            steps: steps of each clip.

        Returns:
            `(R, K, L)` visual tokens.
        """
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
        tokens = self._modulate(projector.norm, pixel_shuffle(hidden[:, 1:], projector.factor), embedding)
        return projector.linear_2(projector.act(projector.linear_1(tokens)))

    @staticmethod
    def _modulate(norm: AdaptiveLayerNorm, hidden: torch.Tensor, embedding: torch.Tensor) -> torch.Tensor:
        """Apply AdaLN with a modulation per row."""
        weight = norm.modulation.weight
        modulation = norm.modulation(F.silu(embedding.to(weight.dtype))).to(hidden.dtype)
        scale, shift = modulation.chunk(2, dim=-1)
        normed = F.layer_norm(hidden, (norm.width,), eps=norm.eps)
        return normed * (1 + scale.unsqueeze(1)) + shift.unsqueeze(1)

    def _temporal(
        self, block: torch.nn.Module, hidden: torch.Tensor, embedding: torch.Tensor, steps: int
    ) -> torch.Tensor:
        """Run a temporal block, with the time axis moved by copying."""
        normed = self._modulate(block.norm, hidden, embedding)
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
