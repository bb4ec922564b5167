"""What tensors become on the way from InternVL to PVC, and what undoes it.

D width of the tower, L width of the language model, s and r patches along a side of a visual token before and after.
Leaves out names (`keymap.py`). Called by `from_internvl.py` and `verify.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from pvc.errors import CheckpointError

Tensors = Sequence[torch.Tensor]


@dataclass(frozen=True)
class Shapes:
    """What transforms have to know of both models.

    Attributes:
        before, after: s and r, patches along a side of a visual token (2 for ratio 1/2, 4 for 1/4).
        heads, kv_heads: of a language model whose projections are fused.
    """

    before: int = 2
    after: int = 2
    heads: int = 1
    kv_heads: int = 1

    @property
    def times(self) -> int:
        """Tokens before, along a side, that one token after takes the place of."""
        return self.after // self.before


def widened(tensor: torch.Tensor, side: int, times: int) -> torch.Tensor:
    """`(..., s s D)` in InternVL's order of channels to `(..., r r D)`, `s = side` and `r = s * times`.

    Every one of the `times * times` tokens that a wider one takes the place of gets the same.
    """
    channels = tensor.unflatten(-1, (1, side, 1, side, -1))
    return channels.expand(*tensor.shape[:-1], times, side, times, side, channels.shape[-1]).flatten(-5)


def narrowed(tensor: torch.Tensor, side: int, times: int) -> torch.Tensor:
    """Undo `widened`: `(..., r r D)` to `(..., s s D)`, the channels of the first of the tokens replaced."""
    channels = tensor.unflatten(-1, (times, side, times, side, -1))
    return channels[..., 0, :, 0, :, :].flatten(-3)


def _layernorm_to_adaln(tensors: Tensors, shapes: Shapes) -> list[torch.Tensor]:
    """LayerNorm's weight w and bias b to AdaLN's bias (w - 1, b), in float32: w - 1 in bfloat16 would be rounded."""
    weight, bias = (widened(tensor.float(), shapes.before, shapes.times) for tensor in tensors)
    return [torch.cat((weight - 1, bias))]


def _adaln_to_layernorm(tensors: Tensors, shapes: Shapes) -> list[torch.Tensor]:
    weight, bias = tensors[0].float().chunk(2)
    return [weight + 1, bias]


def _widen(tensors: Tensors, shapes: Shapes) -> list[torch.Tensor]:
    """The first linear layer `(L, s s D)` to `(L, r r D)`: the mean of what it makes of the tokens replaced.

    Exact for that mean but for the LayerNorm before it, which now spans all of them.
    """
    return [widened(tensors[0] / shapes.times**2, shapes.before, shapes.times)]


def _split_qkv(tensors: Tensors, shapes: Shapes) -> list[torch.Tensor]:
    return list(tensors[0].chunk(3))


def _split_wqkv(tensors: Tensors, shapes: Shapes) -> list[torch.Tensor]:
    """InternLM2's `wqkv`: for every key/value head its query heads, then its key, then its value."""
    weight = tensors[0]
    each = shapes.heads // shapes.kv_heads
    size, left = divmod(len(weight), shapes.kv_heads * (each + 2))
    if left or shapes.heads % shapes.kv_heads:
        raise CheckpointError(
            f"wqkv has {len(weight)} rows, which {shapes.heads} query and {shapes.kv_heads} key heads do not divide"
        )
    groups = weight.unflatten(0, (shapes.kv_heads, each + 2, size))
    return [groups[:, :each].flatten(0, 2), groups[:, each].flatten(0, 1), groups[:, each + 1].flatten(0, 1)]


def _join_wqkv(tensors: Tensors, shapes: Shapes) -> list[torch.Tensor]:
    query, key, value = (tensor.unflatten(0, (shapes.kv_heads, -1)) for tensor in tensors)
    return [torch.cat((query, key, value), dim=1).flatten(0, 1)]


def _same(tensors: Tensors, shapes: Shapes) -> list[torch.Tensor]:
    return list(tensors)


def _joined(tensors: Tensors, shapes: Shapes) -> list[torch.Tensor]:
    return [torch.cat(list(tensors))]


Transform = Callable[[Tensors, Shapes], list[torch.Tensor]]

# By name: forth, and back (which `run.convert_to_internvl` only asks for where s = r).
TRANSFORMS: dict[str, tuple[Transform, Transform]] = {
    "same": (_same, _same),
    "split_qkv": (_split_qkv, _joined),
    "split_wqkv": (_split_wqkv, _join_wqkv),
    "layernorm_to_adaln": (_layernorm_to_adaln, _adaln_to_layernorm),
    "widen": (_widen, _same),
}

__all__ = ["TRANSFORMS", "Shapes", "narrowed", "widened"]
