"""The adaptive compressor: pixel shuffle, AdaLN on the timestep, two linear layers into the language model.

Source: arXiv 2412.09613, section 3.3; module and parameter names follow InternVL's projector. Leaves out the
order of tokens between steps and tiles (`modeling.py`).

R packed rows, N = 1 + patches, D width, r = 1 / downsample_ratio, K = patches / r^2 tokens, L language width.
"""

from __future__ import annotations

import torch
from torch import nn
from transformers.activations import ACT2FN

from pvc.model.config import PVCConfig
from pvc.model.temporal import AdaptiveLayerNorm, Conditioning

# As in InternVL's projector; the tower's own AdaLN uses config.layer_norm_eps.
COMPRESSOR_EPS = 1e-5


def pixel_shuffle(hidden: torch.Tensor, factor: int) -> torch.Tensor:
    """`(R, G * G, D)` patches in row order to `(R, (G / r)^2, r * r * D)`, `r = factor`.

    Channels of a token run over the patch's row, then its column, then D: the order of InternVL's projector
    weights. Tokens are in row order.
    """
    rows, patches, width = hidden.shape
    side = round(patches**0.5)
    out = side // factor
    blocks = hidden.view(rows, out, factor, out, factor, width).permute(0, 1, 3, 2, 4, 5)
    return blocks.reshape(rows, out * out, factor * factor * width)


class PVCMultiModalProjector(nn.Module):
    """`(R, N, D)` hidden states to `(R, K, L)` visual tokens."""

    def __init__(self, config: PVCConfig) -> None:
        super().__init__()
        self.factor = config.downsample_factor
        vision, text = config.vision_config, config.text_config
        shuffled = vision.hidden_size * self.factor**2
        self.norm = AdaptiveLayerNorm(shuffled, vision.hidden_size, COMPRESSOR_EPS)
        self.linear_1 = nn.Linear(shuffled, text.hidden_size)
        self.act = ACT2FN[config.projector_hidden_act]
        self.linear_2 = nn.Linear(text.hidden_size, text.hidden_size)

    def forward(self, hidden: torch.Tensor, conditioning: Conditioning) -> torch.Tensor:
        tokens = pixel_shuffle(hidden[:, 1:], self.factor)  # the class token is dropped
        return self.linear_2(self.act(self.linear_1(self.norm(tokens, conditioning))))


__all__ = ["PVCMultiModalProjector", "pixel_shuffle"]
