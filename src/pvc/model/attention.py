"""Attention written as matrix products, for what torch's fused kernel does slowly on a CPU.

Spatial, in bf16 on a CPU with instructions for it: the fused kernel computes at the speed of float32; products of a few
heads at a time, whose scores stay in the caches, are half as fast again. Over time, in any precision: few steps at many
positions, and the time axis far apart in memory; a few positions at a time need no copy of the whole. Scores are of the
model's precision, as in transformers' eager attention. Leaves out when a model uses it (`pvc.checkpoint.loading`,
`temporal.py`).

B batch, H heads, Q queries, P keys, d width of a head; T steps, M clips times positions, D width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

MATMUL = "pvc_products"

# Scores of one piece, in numbers: 4 MB of bf16, about what stays near a core.
_PIECE = 2**21
# Where steps are few, fused attention spends its time on its own bookkeeping; where they are many, it wins.
_MAX_CAUSAL_POSITIONS = 16


def should_use_matmul(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether this machine multiplies bf16 matrices faster than float32 ones."""
    if device.type != "cpu" or dtype != torch.bfloat16:
        return False
    # torch's own names for what the processor can do are private; without them nothing changes.
    return any(
        getattr(torch.cpu, name, lambda: False)() for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    )


def matmul_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    is_causal: bool | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """`(B, H, Q, d)` over `(B, H, P, d)` to `(B, Q, H, d)`; what does not pay is left to torch's fused attention."""
    queries, keys = query.shape[2], key.shape[2]
    causal = bool(is_causal) and queries > 1
    pays = query.dtype == torch.bfloat16 and query.device.type == "cpu" and not torch.is_grad_enabled()
    if not pays or dropout or attention_mask is not None or (causal and keys > _MAX_CAUSAL_POSITIONS):
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, is_causal=is_causal, **kwargs
        )
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    hidden = torch.ones(queries, keys, dtype=torch.bool).triu(1) if causal else None
    flat = [tensor.reshape(-1, *tensor.shape[2:]) for tensor in (query, key, value)]
    size = max(1, _PIECE // (queries * keys))
    pieces = []
    for q, k, v in zip(*(tensor.split(size) for tensor in flat), strict=True):
        scores = torch.bmm(q * scale, k.transpose(1, 2))
        if hidden is not None:
            scores.masked_fill_(hidden, -torch.inf)
        pieces.append(torch.bmm(scores.softmax(-1), v))
    joined = torch.cat(pieces).unflatten(0, query.shape[:2])
    return joined.transpose(1, 2), None


# Steps (remembered ones too) up to which products win over time, and numbers in the keys of one piece (about 2 MB).
MAX_STEPS = 64
_STEPS_PIECE = 2**19


def should_use_matmul_over_time(query: torch.Tensor, keys: int) -> bool:
    """Whether attention of a temporal block is faster as `attention_over_time`; `query` is its `(T, M, D)`."""
    return query.device.type == "cpu" and keys <= MAX_STEPS and not torch.is_grad_enabled()


def attention_over_time(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None, heads: int
) -> torch.Tensor:
    """`(T, M, D)` queries over `(P, M, D)` keys and values, at every one of the M places on its own, to `(T, M, D)`.

    `mask`: additive `(T, P)`, or None where every query sees every key.
    """
    out = torch.empty_like(query)
    size = chunk_positions(len(key), query.shape[-1])
    for start in range(0, query.shape[1], size):
        part = slice(start, start + size)
        out[:, part] = _last_positions(query[:, part], key[:, part], value[:, part], mask, heads)
    return out


def chunk_positions(keys: int, width: int) -> int:
    """How many of the M places are attended at a time."""
    return max(8, _STEPS_PIECE // (keys * width))


def _last_positions(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None, heads: int
) -> torch.Tensor:
    width = query.shape[-1] // heads
    q, k, v = (  # views: places and heads lie side by side, and a product takes rows that are far apart
        tensor.unflatten(-1, (heads, width)).permute(1, 2, 0, 3).reshape(-1, len(tensor), width)
        for tensor in (query, key, value)
    )
    if mask is None:
        scores = torch.bmm(q, k.transpose(1, 2)).mul_(width**-0.5)
    else:
        scores = torch.baddbmm(mask, q, k.transpose(1, 2), alpha=width**-0.5)
    scores = scores.softmax(-1)
    return torch.bmm(scores, v).unflatten(0, (-1, heads)).permute(2, 0, 1, 3).flatten(2)


AttentionInterface.register(MATMUL, matmul_attention)

__all__ = [
    "MATMUL",
    "MAX_STEPS",
    "attention_over_time",
    "chunk_positions",
    "matmul_attention",
    "should_use_matmul",
    "should_use_matmul_over_time",
]
