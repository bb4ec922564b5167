"""The arms of the ablation: what is left of the progressive compressor in each, as settings of the real network.

Every arm is the library's own model; only G needs a module that is not part of it. Leaves out training (`run.py`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import nn

from pvc.model.compressor import PVCMultiModalProjector
from pvc.model.config import PVCConfig
from pvc.model.temporal import AdaptiveLayerNorm, Conditioning, TimestepEmbedding

# Downsample ratio of the base that every arm starts from.
BASE_RATIO = 0.5
# Parameters that make the network depend on the timestep. Where they are frozen, `without_timesteps` has made AdaLN a
# LayerNorm with a fixed affine.
CONDITIONING = ("modulation", "timestep_embedding")

# How far G's heads start apart, in standard deviations of the weights they are copies of.
APART = 0.1


@dataclass(frozen=True)
class Arm:
    """Settings of one arm.

    Attributes:
        ratio: of the compressor; 1/2 gives four times the tokens of 1/4.
        steps: of a picture.
        temporal: whether the tower has its temporal blocks.
        conditioned: whether AdaLN may learn; without, every step is computed alike.
        heads: compressor heads, one a step, in place of one that is conditioned.
        frames_part: part of a clip's frames that the arm is shown.
    """

    summary: str
    ratio: float
    steps: int
    temporal: bool
    conditioned: bool
    heads: int = 1
    frames_part: float = 1.0

    @property
    def frozen(self) -> tuple[str, ...]:
        return () if self.conditioned else CONDITIONING


ARMS = {
    "A": Arm("one step, ratio 1/2 (four times the tokens), continued", 0.5, 1, False, True),
    "B": Arm("one step, ratio 1/4: plain compression", 0.25, 1, False, False),
    "Bp": Arm("one step, ratio 1/4, with all of D's parameters", 0.25, 1, True, True),
    "C": Arm("four identical copies, ratio 1/4", 0.25, 4, False, False),
    "D": Arm("PVC: four steps, ratio 1/4, temporal attention and AdaLN", 0.25, 4, True, True),
    "E": Arm("AdaLN only", 0.25, 4, False, True),
    "F": Arm("temporal attention only", 0.25, 4, True, False),
    "G": Arm("four learned compressor heads, no AdaLN, no temporal attention", 0.25, 4, False, False, heads=4),
    "H": Arm("ratio 1/2 at a quarter of the frames (equal tokens in total)", 0.5, 1, False, True, frames_part=0.25),
}


class HeadPerStep(nn.Module):
    """Arm G's compressor: step k goes through head k (the last one from there on)."""

    def __init__(self, config: PVCConfig, heads: int) -> None:
        super().__init__()
        self.heads = nn.ModuleList(PVCMultiModalProjector(config) for _ in range(heads))

    def forward(self, hidden: torch.Tensor, conditioning: Conditioning) -> torch.Tensor:
        """`(R, N, D)` hidden states to `(R, K, L)` visual tokens."""
        # Index timesteps without gaps: a row's place among the distinct timesteps is its step.
        step = conditioning.index.clamp(max=len(self.heads) - 1)
        tokens = [head(hidden, conditioning) for head in self.heads]
        return torch.stack(tokens)[step, torch.arange(len(hidden), device=hidden.device)]


def without_timesteps(model: Any) -> None:
    """Make every AdaLN say at all timesteps what it says at the first, for good (its inputs are frozen then).

    A base learned its modulations at the first timestep and nowhere else: at others they would say something that
    nobody trained, and identical steps would not be identical.
    """
    embedder = next(module for module in model.modules() if isinstance(module, TimestepEmbedding))
    with torch.no_grad():
        first = embedder(torch.zeros(1, dtype=torch.float64))
        for norm in model.modules():
            if isinstance(norm, AdaptiveLayerNorm):
                norm.modulation.bias.copy_(norm.modulation(F.silu(first))[0])
                norm.modulation.weight.zero_()


def give_heads(model: Any, heads: int, seed: int) -> None:
    """Replace the compressor by one head a step: copies of it, and a little apart, or they would stay alike."""
    generator = torch.Generator().manual_seed(seed)
    own = model.model.multi_modal_projector
    projector = HeadPerStep(model.config, heads)
    for head in cast(Iterable[Any], projector.heads):
        head.load_state_dict(own.state_dict())
        for linear in (head.linear_1, head.linear_2):
            noise = torch.randn(linear.weight.shape, generator=generator)
            linear.weight.data += APART * linear.weight.data.std() * noise
    model.model.multi_modal_projector = projector


__all__ = ["ARMS", "BASE_RATIO", "CONDITIONING", "Arm", "HeadPerStep", "give_heads", "without_timesteps"]
