"""Arms of the ablation: settings of the library's network that remove parts of the progressive compressor.

Only arm G needs a module that is not part of the library. Training is in `run.py`, which calls this file.
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
# Parameters that make the network depend on the timestep. If they are frozen, `fold_timesteps` has turned AdaLN into a
# LayerNorm with a fixed affine.
CONDITIONING = ("modulation", "timestep_embedding")

# Noise that separates G's heads at the start, in standard deviations of the copied weights.
HEAD_NOISE = 0.1


@dataclass(frozen=True)
class Arm:
    """Settings of one arm.

    Attributes:
        summary: description for the report.
        ratio: downsample ratio of the compressor; 1/2 gives four times the tokens of 1/4.
        steps: steps of a picture.
        temporal: whether the tower has its temporal blocks.
        conditioned: whether AdaLN is trained; otherwise all steps are computed alike.
        heads: number of compressor heads, one per step, in place of a conditioned one.
        frames_part: fraction of a clip's frames that the arm uses.
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
        """Parts of names of the parameters that are not trained."""
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
    """Compressor of arm G: step k uses head k; later steps use the last head.

    Args:
        config: of the model.
        heads: number of heads.
    """

    def __init__(self, config: PVCConfig, heads: int) -> None:
        super().__init__()
        self.heads = nn.ModuleList(PVCMultiModalProjector(config) for _ in range(heads))

    def forward(self, hidden: torch.Tensor, conditioning: Conditioning) -> torch.Tensor:
        """Compress hidden states to visual tokens.

        Args:
            hidden: `(R, N, D)` output of the tower.
            conditioning: timestep of every row.

        Returns:
            `(R, K, L)` visual tokens.
        """
        # With index timesteps without gaps, a row's index among the distinct timesteps is its step.
        step = conditioning.index.clamp(max=len(self.heads) - 1)
        tokens = [head(hidden, conditioning) for head in self.heads]
        return torch.stack(tokens)[step, torch.arange(len(hidden), device=hidden.device)]


def fold_timesteps(model: Any) -> None:
    """Set every AdaLN's output at all timesteps to that at the first one; its inputs must be frozen afterwards.

    A base is trained at the first timestep only. At others its modulations would be untrained, and identical steps
    would not be identical.
    """
    embedder = next(module for module in model.modules() if isinstance(module, TimestepEmbedding))
    with torch.no_grad():
        first = embedder(torch.zeros(1, dtype=torch.float64))
        for norm in model.modules():
            if isinstance(norm, AdaptiveLayerNorm):
                norm.modulation.bias.copy_(norm.modulation(F.silu(first))[0])
                norm.modulation.weight.zero_()


def add_step_heads(model: Any, heads: int, seed: int) -> None:
    """Replace the compressor by one head per step: copies with noise, since equal heads would stay equal.

    Args:
        model: changed in place.
        heads: number of heads.
        seed: of the noise.
    """
    generator = torch.Generator().manual_seed(seed)
    compressor = model.model.multi_modal_projector
    projector = HeadPerStep(model.config, heads)
    for head in cast(Iterable[Any], projector.heads):
        head.load_state_dict(compressor.state_dict())
        for linear in (head.linear_1, head.linear_2):
            noise = torch.randn(linear.weight.shape, generator=generator)
            linear.weight.data += HEAD_NOISE * linear.weight.data.std() * noise
    model.model.multi_modal_projector = projector


__all__ = [
    "ARMS",
    "BASE_RATIO",
    "CONDITIONING",
    "Arm",
    "HeadPerStep",
    "add_step_heads",
    "fold_timesteps",
]
