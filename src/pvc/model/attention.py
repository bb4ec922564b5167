"""Attention as matrix products, where torch's fused kernel is slow on a CPU.

Scores have the model's precision, as in transformers' eager attention.
`matmul_attention`: spatial attention in bf16, where the fused kernel is no faster than in float32. The scores of a few
heads fit into the CPU caches, which gives 1.5 times the speed. Selected by `pvc.checkpoint.loading`.
`attention_over_time`: temporal attention in any precision, with few steps at many positions. It computes chunks of
positions, without copying the time axis, whose values are far apart in memory. Called by `temporal.py`.

B batch, H heads, Q queries, P keys, d width of a head; T steps, C clips, N positions, D width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

MATMUL = "pvc_products"

# Values in the scores of one chunk: 4 MB of bf16, about what fits into the caches of a core.
_CHUNK_SCORES = 2**21
# With few steps, the overhead of fused attention dominates. With many steps, fused attention is faster.
_MAX_CAUSAL_POSITIONS = 16


def should_use_matmul(device: torch.device, dtype: torch.dtype) -> bool:
    """Check whether `matmul_attention` is faster than fused attention for spatial layers.

    It is on a CPU that has instructions for bf16 matrix products.

    Args:
        device: device of the model.
        dtype: dtype of the model.

    Returns:
        True for bfloat16 on a CPU with AVX512-BF16 or AMX tiles.
    """
    if device.type != "cpu" or dtype != torch.bfloat16:
        return False
    # torch's functions for CPU features are private. If they are missing, the fused kernel is used.
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
    """Compute attention as matrix products, or with torch's fused kernel where that is faster.

    The fused kernel is used for other dtypes than bf16, with gradients, dropout or a mask, and for long causal inputs.

    Args:
        module: the attention layer, passed to the fused kernel.
        query: `(B, H, Q, d)`.
        key: `(B, H, P, d)`.
        value: `(B, H, P, d)`.
        attention_mask: additive mask, or None.
        scaling: factor of the scores; by default `d ** -0.5`.
        dropout: probability of dropping a weight.
        is_causal: whether a query sees only keys up to its position.
        **kwargs: other options of transformers' attention functions, passed to the fused kernel.

    Returns:
        `(B, Q, H, d)`, and None in place of attention weights.
    """
    queries, keys = query.shape[2], key.shape[2]
    is_masked = bool(is_causal) and queries > 1
    is_supported = query.dtype == torch.bfloat16 and query.device.type == "cpu" and not torch.is_grad_enabled()
    if not is_supported or dropout or attention_mask is not None or (is_masked and keys > _MAX_CAUSAL_POSITIONS):
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, is_causal=is_causal, **kwargs
        )
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    future = torch.ones(queries, keys, dtype=torch.bool).triu(1) if is_masked else None
    flat = [tensor.reshape(-1, *tensor.shape[2:]) for tensor in (query, key, value)]
    size = max(1, _CHUNK_SCORES // (queries * keys))
    chunks = []
    for q, k, v in zip(*(tensor.split(size) for tensor in flat), strict=True):
        scores = torch.bmm(q * scale, k.transpose(1, 2))
        if future is not None:
            scores.masked_fill_(future, -torch.inf)
        chunks.append(torch.bmm(scores.softmax(-1), v))
    attended = torch.cat(chunks).unflatten(0, query.shape[:2])
    return attended.transpose(1, 2), None


# Up to this number of steps (cached steps included), matrix products are faster than fused attention over time.
MAX_STEPS = 64
# Values in the keys of one chunk: about 2 MB.
_CHUNK_KEYS = 2**19


def should_use_matmul_over_time(query: torch.Tensor, keys: int) -> bool:
    """Check whether `attention_over_time` is faster than fused attention for a temporal block.

    Args:
        query: `(T, C * N, D)`.
        keys: number of steps in the keys, cached steps included.

    Returns:
        True on a CPU without gradients, for at most `MAX_STEPS` keys.
    """
    return query.device.type == "cpu" and keys <= MAX_STEPS and not torch.is_grad_enabled()


def attention_over_time(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None, heads: int
) -> torch.Tensor:
    """Compute attention over steps, separately at each of the C * N positions.

    Args:
        query: `(T, C * N, D)`.
        key: `(P, C * N, D)`.
        value: `(P, C * N, D)`.
        mask: additive `(T, P)`, or None if every query sees every key.
        heads: number of heads H.

    Returns:
        `(T, C * N, D)`.
    """
    out = torch.empty_like(query)
    size = chunk_positions(len(key), query.shape[-1])
    for start in range(0, query.shape[1], size):
        part = slice(start, start + size)
        out[:, part] = _attend_positions(query[:, part], key[:, part], value[:, part], mask, heads)
    return out


def chunk_positions(keys: int, width: int) -> int:
    """Compute how many of the C * N positions are attended at a time.

    Args:
        keys: number of steps in the keys.
        width: model width D.
    """
    return max(8, _CHUNK_KEYS // (keys * width))


def _attend_positions(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None, heads: int
) -> torch.Tensor:
    """Compute `attention_over_time` of one chunk of positions."""
    width = query.shape[-1] // heads
    q, k, v = (  # views, not copies: `bmm` accepts rows that are far apart in memory
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
