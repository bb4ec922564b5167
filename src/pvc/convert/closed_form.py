"""The closed form: a base model's visual tokens from a progressive compressor, without training.

A compressor of a smaller ratio sees several of the base's blocks of patches in one token. Step t then emits the base's
token for one block: LayerNorm is taken per block, the modulation of timestep t lets that block pass and silences the
others, and `linear_1` is the base's, repeated. The modulation is solved for, since it is a function of the embedded
timestep. Called by conversion (`from_internvl.py`, `from_pvc.py`) and by training (`pvc.train.model_init`).

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
    """Tensors of a compressor in closed form, under their names in a checkpoint, and how exact they are.

    Attributes:
        tensors: `norm.modulation.weight` and `.bias` (float32), and `linear_1.weight` (as the base's).
        residual: largest difference of a scale or shift, computed in float32, from the value that it stands for.
        condition: condition number of the system that was solved.
    """

    tensors: dict[str, torch.Tensor]
    residual: float
    condition: float


def solved_timesteps(config: PVCVisionConfig, blocks: int) -> list[int]:
    """Return the timesteps for which the closed form has to hold.

    Args:
        config: of the converted tower.
        blocks: `G`, the base's tokens in one of ours.

    Raises:
        ConfigError: relative timesteps, a period that is no multiple of `blocks`, or an index without a limit.
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
    """Embed `(U,)` timesteps as the network does in float32, with SiLU: what a modulation reads, `(U, D)` float32.

    `embedder` has `linear_1.weight`, `linear_1.bias`, `linear_2.weight` and `linear_2.bias`.
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
        norm_weight, norm_bias: `(s s D,)`, the LayerNorm of the base's projector.
        linear: `(L, s s D)`, its first linear layer.
        config: of the converted model; `compressor_norm_groups` is `G`.
        embedder: as for `embed_timesteps`, in the precision in which it is stored.

    Raises:
        ConfigError: the timesteps are too much alike: the residual exceeds `MAX_RESIDUAL`.
    """
    blocks, width = config.compressor_norm_groups, len(norm_weight)
    timesteps = solved_timesteps(config.vision_config, blocks)
    scale = float(config.vision_config.timestep_scale or 1.0)
    embedded = embed_timesteps(timesteps, scale, embedder)
    target = targets(norm_weight.double(), norm_bias.double(), timesteps, blocks)
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


def targets(weight: torch.Tensor, bias: torch.Tensor, timesteps: list[int], blocks: int) -> torch.Tensor:
    """Return scale (less 1) and shift of every channel at every timestep, `(U, 2 G s s D)` float64.

    `weight` and `bias` `(s s D,)` are the base's LayerNorm; channels of one block are contiguous.
    """
    side, width = round(blocks**0.5), len(weight)
    target = torch.zeros(len(timesteps), 2, blocks, width, dtype=torch.float64)
    target[:, 0] = -1.0  # 1 + scale = 0: this channel is silent
    places = block_positions(blocks)
    for row, timestep in enumerate(timesteps):
        place = places[timestep % blocks]
        number = place[0] * side + place[1]
        target[row, 0, number] = weight - 1
        target[row, 1, number] = bias
    return target.flatten(1)


__all__ = [
    "EMBEDDER",
    "MAX_RESIDUAL",
    "PROJECTOR",
    "ClosedForm",
    "embed_timesteps",
    "solve",
    "solved_timesteps",
    "targets",
]
