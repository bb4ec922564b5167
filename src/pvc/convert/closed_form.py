"""Closed form of a progressive compressor that emits a base model's visual tokens without training.

A token of a smaller ratio spans several blocks of the base's patches; step t emits the base's token for one block.
LayerNorm is computed per block, the modulation of timestep t passes that block and zeroes the others, and `linear_1` is
the base's, repeated. The modulation is solved for, since it is a function of the embedded timestep. Called by
`from_internvl.py`, `from_pvc.py`, `to_internvl.py` and `pvc.train.model_init`.
U timesteps, D width of the tower, L width of the language model, s patches along a side of the base's token, G blocks.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from pvc.errors import ConfigError
from pvc.model.config import PVCConfig, PVCVisionConfig
from pvc.model.order import block_positions
from pvc.model.temporal import sinusoid

MAX_RESIDUAL = 1e-5
PROJECTOR = "model.multi_modal_projector"
EMBEDDER = "model.vision_tower.timestep_embedding"
_TINY = 1e-12


@dataclass(frozen=True)
class ClosedForm:
    """Tensors of a compressor in closed form, and their accuracy.

    Attributes:
        tensors: `norm.modulation.weight` and `.bias` (float32), and `linear_1.weight` (the base's dtype), by full name.
        residual: largest difference of a scale or shift, computed in float32, from its target.
        condition: condition number of the linear system.
    """

    tensors: dict[str, torch.Tensor]
    residual: float
    condition: float


def get_timesteps(config: PVCVisionConfig, blocks: int) -> list[int]:
    """Return the timesteps for which the closed form has to hold.

    Args:
        config: of the converted tower.
        blocks: `G`, the number of the base's tokens per token of the converted model.

    Raises:
        ConfigError: relative timesteps, a period that is not a multiple of `blocks`, or an index without a limit.
    """
    if config.timestep == "cyclic":
        period = config.timestep_period or 0
        if period % blocks:
            raise ConfigError(f"timestep_period is {period}; with {blocks} blocks it must be a multiple of {blocks}")
        return list(range(period))
    if config.timestep == "index":
        if config.timestep_limit is None:
            raise ConfigError("timestep is 'index' without a timestep_limit: the closed form needs a last timestep")
        return list(range(config.timestep_limit + 1))
    raise ConfigError("timestep is 'relative' (step / total): step t does not always mean one block; use 'cyclic'")


def embed_timesteps(timesteps: list[int], scale: float, embedder: dict[str, torch.Tensor]) -> torch.Tensor:
    """Embed timesteps as the network does in float32, including the SiLU before a modulation.

    Args:
        timesteps: `U` step numbers.
        scale: `timestep_scale` of the tower's configuration.
        embedder: `linear_1.weight`, `linear_1.bias`, `linear_2.weight` and `linear_2.bias` of the timestep embedder.

    Returns:
        Input of a modulation, `(U, D)` float32.
    """
    wave = sinusoid(torch.tensor(timesteps, dtype=torch.float64), scale).float()
    state = {name: tensor.float() for name, tensor in embedder.items()}
    hidden = F.silu(F.linear(wave, state["linear_1.weight"], state["linear_1.bias"]))
    return F.silu(F.linear(hidden, state["linear_2.weight"], state["linear_2.bias"]))


def solve(
    norm_weight: torch.Tensor,
    norm_bias: torch.Tensor,
    linear: torch.Tensor,
    config: PVCConfig,
    embedder: dict[str, torch.Tensor],
) -> ClosedForm:
    """Solve for the compressor that emits the base's tokens block by block.

    Args:
        norm_weight: `(s s D,)`, weight of the LayerNorm in the base's projector.
        norm_bias: `(s s D,)`, its bias.
        linear: `(L, s s D)`, weight of the projector's first linear layer.
        config: of the converted model; `compressor_norm_groups` is `G`.
        embedder: as for `embed_timesteps`, in the stored precision.

    Raises:
        ConfigError: the timesteps are too much alike: the residual exceeds `MAX_RESIDUAL`.
    """
    blocks, width = config.compressor_norm_groups, len(norm_weight)
    timesteps = get_timesteps(config.vision_config, blocks)
    scale = float(config.vision_config.timestep_scale or 1.0)
    embedded = embed_timesteps(timesteps, scale, embedder)
    target = compute_targets(norm_weight.double(), norm_bias.double(), timesteps, blocks)
    system = torch.cat((embedded.double(), torch.ones(len(timesteps), 1, dtype=torch.float64)), 1)
    solution = torch.linalg.lstsq(system, target, driver="gelsd").solution
    weight, bias = solution[:-1].T.float().contiguous(), solution[-1].float()
    residual = float((F.linear(embedded, weight, bias).double() - target).abs().max())
    singular = torch.linalg.svdvals(system)
    condition = float(singular[0] / singular[-1].clamp(min=_TINY))
    if not residual <= MAX_RESIDUAL:
        raise ConfigError(
            f"the closed form leaves a residual of {residual:.2g} for {len(timesteps)} timesteps and a tower of width "
            f"{embedded.shape[1]} (condition number {condition:.2g}); at most {MAX_RESIDUAL:g} is exact enough. Use "
            "--timestep cyclic, a smaller --timestep-limit, or --init mean"
        )
    assert weight.shape == (2 * blocks * width, embedded.shape[1])
    tensors = {
        f"{PROJECTOR}.norm.modulation.weight": weight,
        f"{PROJECTOR}.norm.modulation.bias": bias,
        f"{PROJECTOR}.linear_1.weight": linear.repeat(1, blocks),
    }
    return ClosedForm(tensors, residual, condition)


def compute_targets(weight: torch.Tensor, bias: torch.Tensor, timesteps: list[int], blocks: int) -> torch.Tensor:
    """Compute the scale (less 1) and shift that every channel needs at every timestep.

    Args:
        weight: `(s s D,)`, weight of the base's LayerNorm.
        bias: `(s s D,)`, its bias.
        timesteps: `U` step numbers.
        blocks: `G`.

    Returns:
        `(U, 2 G s s D)` float64; the channels of one block are contiguous.
    """
    side, width = round(blocks**0.5), len(weight)
    target = torch.zeros(len(timesteps), 2, blocks, width, dtype=torch.float64)
    target[:, 0] = -1.0  # 1 + scale = 0: the channel is zero
    positions = block_positions(blocks)
    for row, timestep in enumerate(timesteps):
        block_row, block_column = positions[timestep % blocks]
        block = block_row * side + block_column
        target[row, 0, block] = weight - 1
        target[row, 1, block] = bias
    return target.flatten(1)


__all__ = [
    "EMBEDDER",
    "MAX_RESIDUAL",
    "PROJECTOR",
    "ClosedForm",
    "compute_targets",
    "embed_timesteps",
    "get_timesteps",
    "solve",
]
