"""Transforms of tensors from InternVL to PVC, and their inverses.

D width of the tower, L width of the language model, s and r patches along a side of a visual token before and after.
Names are in `keymap.py`. Called by `from_internvl.py`, `to_internvl.py` and `verify.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from pvc.errors import CheckpointError

Tensors = Sequence[torch.Tensor]


@dataclass(frozen=True)
class Shapes:
    """Sizes of both models that transforms need.

    Attributes:
        before: `s`, patches along a side of a source token (2 for ratio 1/2, 4 for 1/4).
        after: `r`, patches along a side of a token of the converted model.
        heads: query heads of a language model whose projections are fused.
        kv_heads: key/value heads of that language model.
    """

    before: int = 2
    after: int = 2
    heads: int = 1
    kv_heads: int = 1

    @property
    def times(self) -> int:
        """Source tokens along a side that one token of the converted model replaces."""
        return self.after // self.before


def widened(tensor: torch.Tensor, side: int, times: int) -> torch.Tensor:
    """Repeat channels for a token that replaces `times * times` tokens; each of them gets the same values.

    Args:
        tensor: `(..., s s D)` in InternVL's order of channels.
        side: `s`.
        times: `r / s`.

    Returns:
        `(..., r r D)`.
    """
    channels = tensor.unflatten(-1, (1, side, 1, side, -1))
    return channels.expand(*tensor.shape[:-1], times, side, times, side, channels.shape[-1]).flatten(-5)


def narrowed(tensor: torch.Tensor, side: int, times: int) -> torch.Tensor:
    """Undo `widened`: return the channels of the first of the replaced tokens.

    Args:
        tensor: `(..., r r D)`.
        side: `s`.
        times: `r / s`.

    Returns:
        `(..., s s D)`.
    """
    channels = tensor.unflatten(-1, (times, side, times, side, -1))
    return channels[..., 0, :, 0, :, :].flatten(-3)


def _layernorm_to_adaln(tensors: Tensors, shapes: Shapes) -> list[torch.Tensor]:
    """Convert LayerNorm's weight w and bias b to AdaLN's bias (w - 1, b), in float32; bfloat16 would round w - 1."""
    weight, bias = (widened(tensor.float(), shapes.before, shapes.times) for tensor in tensors)
    return [torch.cat((weight - 1, bias))]


def _adaln_to_layernorm(tensors: Tensors, shapes: Shapes) -> list[torch.Tensor]:
    weight, bias = tensors[0].float().chunk(2)
    return [weight + 1, bias]


def _widen(tensors: Tensors, shapes: Shapes) -> list[torch.Tensor]:
    """Widen the first linear layer from `(L, s s D)` to `(L, r r D)`: its output is the mean over the replaced tokens.

    The result is exact for that mean, except that the LayerNorm before it now spans all replaced tokens.
    """
    return [widened(tensors[0] / shapes.times**2, shapes.before, shapes.times)]


def _split_qkv(tensors: Tensors, shapes: Shapes) -> list[torch.Tensor]:
    return list(tensors[0].chunk(3))


def _split_wqkv(tensors: Tensors, shapes: Shapes) -> list[torch.Tensor]:
    """Split InternLM2's `wqkv`, which has for every key/value head its query heads, its key and its value."""
    weight = tensors[0]
    group = shapes.heads // shapes.kv_heads
    size, rest = divmod(len(weight), shapes.kv_heads * (group + 2))
    if rest or shapes.heads % shapes.kv_heads:
        raise CheckpointError(
            f"wqkv has {len(weight)} rows, which {shapes.heads} query and {shapes.kv_heads} key heads do not divide"
        )
    groups = weight.unflatten(0, (shapes.kv_heads, group + 2, size))
    return [groups[:, :group].flatten(0, 2), groups[:, group].flatten(0, 1), groups[:, group + 1].flatten(0, 1)]


def _join_wqkv(tensors: Tensors, shapes: Shapes) -> list[torch.Tensor]:
    query, key, value = (tensor.unflatten(0, (shapes.kv_heads, -1)) for tensor in tensors)
    return [torch.cat((query, key, value), dim=1).flatten(0, 1)]


def _keep(tensors: Tensors, shapes: Shapes) -> list[torch.Tensor]:
    return list(tensors)


def _join(tensors: Tensors, shapes: Shapes) -> list[torch.Tensor]:
    return [torch.cat(list(tensors))]


Transform = Callable[[Tensors, Shapes], list[torch.Tensor]]

# By name: transform and inverse. `to_internvl.convert_to_internvl` uses the inverse for s = r only.
TRANSFORMS: dict[str, tuple[Transform, Transform]] = {
    "same": (_keep, _keep),
    "split_qkv": (_split_qkv, _join),
    "split_wqkv": (_split_wqkv, _join_wqkv),
    "layernorm_to_adaln": (_layernorm_to_adaln, _adaln_to_layernorm),
    "widen": (_widen, _keep),
}

__all__ = ["TRANSFORMS", "Shapes", "narrowed", "widened"]
