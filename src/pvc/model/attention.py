"""Attention written as matrix products, for bf16 on a CPU that has instructions for it.

torch's fused kernel computes bf16 there at the speed of float32; products of a few heads at a time, whose scores stay
in the processor's caches, are half as fast again. Scores are bf16, as in transformers' eager attention. Leaves out
when a model uses it (`pvc.checkpoint.loading`). Called through transformers' table of attention functions.

B batch, H heads, Q queries, P keys, d width of a head.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

PRODUCTS = "pvc_products"

# Scores of one piece, in numbers: 4 MB of bf16, about what stays near a core.
_PIECE = 2**21
# Where steps are few, fused attention spends its time on its own bookkeeping; where they are many, it wins.
_MOST_CAUSAL = 16


def products_pay(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether this machine multiplies bf16 matrices faster than float32 ones."""
    if device.type != "cpu" or dtype != torch.bfloat16:
        return False
    # torch's own names for what the processor can do are private; without them nothing changes.
    return any(
        getattr(torch.cpu, name, lambda: False)() for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    )


def products_attention(
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
    if not pays or dropout or attention_mask is not None or (causal and keys > _MOST_CAUSAL):
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


AttentionInterface.register(PRODUCTS, products_attention)

__all__ = ["PRODUCTS", "products_attention", "products_pay"]
