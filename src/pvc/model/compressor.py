"""The adaptive compressor: pixel shuffle, AdaLN on the timestep, two linear layers to the language width.

Source: arXiv 2412.09613, section 3.3. Module and parameter names follow InternVL's projector. The order of tokens
between steps and tiles is in `order.py`. Called by `modeling.py` and `features.py`.

R packed rows, N = 1 + patches, D width, r = 1 / downsample_ratio, K = patches / r^2 tokens, L language width.
"""

from __future__ import annotations

import torch
from torch import nn
from transformers.activations import ACT2FN

from pvc.model.config import PVCConfig
from pvc.model.temporal import AdaptiveLayerNorm, Conditioning

# As in InternVL's projector. AdaLN in the tower uses config.layer_norm_eps.
COMPRESSOR_EPS = 1e-5


def pixel_shuffle(hidden: torch.Tensor, factor: int, blocks: int = 1) -> torch.Tensor:
    """Join square blocks of patches into tokens, in row order.

    The channels of a token run over the patch's row, then its column, then D. This is the order of InternVL's
    projector weights. If `blocks` > 1, the patches of a token form `blocks * blocks` squares. Channels then run over
    the square's row and column first, so that the channels of each square are contiguous.

    Args:
        hidden: `(R, G * G, D)` patches in row order, G patches along a side.
        factor: r, patches along a side of a token.
        blocks: squares along a side of a token.

    Returns:
        `(R, (G / r)^2, r * r * D)`.
    """
    rows, patches, width = hidden.shape
    side = round(patches**0.5)
    out, inner = side // factor, factor // blocks
    split = hidden.view(rows, out, blocks, inner, out, blocks, inner, width).permute(0, 1, 4, 2, 5, 3, 6, 7)
    return split.reshape(rows, out * out, factor * factor * width)


class PVCMultiModalProjector(nn.Module):
    """The compressor, from hidden states to visual tokens.

    Args:
        config: configuration of the model.
    """

    def __init__(self, config: PVCConfig) -> None:
        super().__init__()
        self.factor = config.downsample_factor
        self.blocks = round(config.compressor_norm_groups**0.5)
        vision, text = config.vision_config, config.text_config
        shuffled = vision.hidden_size * self.factor**2
        self.norm = AdaptiveLayerNorm(shuffled, vision.hidden_size, COMPRESSOR_EPS, config.compressor_norm_groups)
        self.linear_1 = nn.Linear(shuffled, text.hidden_size)
        self.act = ACT2FN[config.projector_hidden_act]
        self.linear_2 = nn.Linear(text.hidden_size, text.hidden_size)

    def forward(self, hidden: torch.Tensor, conditioning: Conditioning) -> torch.Tensor:
        """Compress hidden states to visual tokens.

        Args:
            hidden: `(R, N, D)` hidden states of the tower.
            conditioning: timestep embeddings of the packed rows.

        Returns:
            `(R, K, L)` visual tokens.
        """
        tokens = pixel_shuffle(hidden[:, 1:], self.factor, self.blocks)  # the class token is dropped
        return self.linear_2(self.act(self.linear_1(self.norm(tokens, conditioning))))


__all__ = ["PVCMultiModalProjector", "pixel_shuffle"]
