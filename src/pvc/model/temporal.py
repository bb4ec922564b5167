"""The temporal block: timestep embedding, adaptive layer norm (AdaLN) and causal attention over time.

Source: arXiv 2412.09613, sections 3.2 and 3.3. Leaves out the spatial layers (InternVL's, in `vision.py`).

R packed rows (all steps of all clips), T steps, P remembered steps, C clips, N positions, D width, H heads,
U distinct timesteps, E width of the timestep embedding.
"""

from __future__ import annotations

import math
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.internvl.modeling_internvl import eager_attention_forward

from pvc.model.attention import MATMUL, attention_over_time, should_use_matmul_over_time
from pvc.model.cache import keep_recent
from pvc.model.config import PVCVisionConfig
from pvc.model.layout import ClipLayout, Group
from pvc.model.linear import Float32Linear, ProjectionLinear, ZeroFloat32Linear, ZeroLinear

SINUSOID_WIDTH = 256

# CUDA's attention kernels take the batch as a grid dimension of at most 65,535; C * N passes that at 64 clips of
# 448 px (pytorch issue 142228).
MAX_ATTENTION_BATCH = 65_535

# Numbers from which a call for every timestep costs less than the passes over memory that it saves.
_LARGE_RUN = 2**17

KeyValue = tuple[torch.Tensor, torch.Tensor]


def sinusoid(timesteps: torch.Tensor, scale: float) -> torch.Tensor:
    """`(U,)` timesteps to `(U, 256)` float64: 128 cosines, then 128 sines of `scale * t * 10000^(-k / 128)`.

    Angles are float64: at a scale of 100, bf16 could not tell step 40 from step 41.
    """
    half = SINUSOID_WIDTH // 2
    frequencies = torch.exp(
        -math.log(10000.0) * torch.arange(half, dtype=torch.float64, device=timesteps.device) / half
    )
    angles = scale * timesteps.to(torch.float64)[:, None] * frequencies
    return torch.cat((angles.cos(), angles.sin()), dim=-1)


class TimestepEmbedding(nn.Module):
    """`e_t = MLP(sinusoid(t))`: one embedder for the whole model, `(U,)` timesteps to `(U, D)`."""

    def __init__(self, config: PVCVisionConfig) -> None:
        super().__init__()
        self.scale = float(config.timestep_scale or 1.0)
        self.linear_1 = Float32Linear(SINUSOID_WIDTH, config.hidden_size)
        self.linear_2 = Float32Linear(config.hidden_size, config.hidden_size)

    def forward(self, timesteps: torch.Tensor) -> torch.Tensor:
        return self.linear_2(F.silu(self.linear_1(sinusoid(timesteps, self.scale))))


class Conditioning:
    """What AdaLN is conditioned on in one call: `(U, D)` embeddings and the `(R,)` index of each packed row."""

    def __init__(self, embeddings: torch.Tensor, index: torch.Tensor) -> None:
        self.embeddings = embeddings
        self.index = index

    @cached_property
    def runs(self) -> list[tuple[int, int, int]]:
        """Neighbouring rows of one timestep: `(start, stop, timestep)`, in order."""
        kept, counts = torch.unique_consecutive(self.index, return_counts=True)
        stops = counts.cumsum(0).tolist()
        return list(zip([0, *stops[:-1]], stops, kept.tolist(), strict=True))


def get_timesteps(
    layout: ClipLayout, config: PVCVisionConfig, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Distinct timesteps `(U,)` (float64) of a call and the `(R,)` index of each packed row's timestep.

    "index": the step's number, saturating at `timestep_limit`. "cyclic": the number modulo `timestep_period`.
    "relative": number / steps of the clip.
    """
    if config.timestep == "cyclic":
        assert config.timestep_period is not None
        values = [float(step % config.timestep_period) for step in layout.step_of_row]
    elif config.timestep == "index":
        limit = config.timestep_limit
        values = [float(step if limit is None else min(step, limit)) for step in layout.step_of_row]
    else:
        values = []
        for group in layout.groups:
            total = layout.total_steps or group.steps
            values += [layout.step_of_row[row] / total for row in range(group.rows.start, group.rows.stop)]
    distinct = sorted(set(values))
    place = {value: number for number, value in enumerate(distinct)}
    index = torch.tensor([place[value] for value in values], device=device)
    return torch.tensor(distinct, dtype=torch.float64, device=device), index


class AdaptiveLayerNorm(nn.Module):
    """`LayerNorm(x) * (1 + scale(e)) + shift(e)`; the LayerNorm has no affine of its own.

    With more than one group, each of `groups` equal runs of channels is normalised separately.
    """

    def __init__(self, width: int, embedding_width: int, eps: float, groups: int = 1) -> None:
        super().__init__()
        self.width, self.groups, self.eps = width, groups, eps
        self.modulation = ZeroFloat32Linear(embedding_width, 2 * width)

    def forward(self, hidden: torch.Tensor, conditioning: Conditioning) -> torch.Tensor:
        """`(R, ..., width)` to the same shape; scale and shift are computed once per distinct timestep."""
        # 1 + scale in float32 also in a bf16 model, so that a converted LayerNorm weight w = 1 + (w - 1) is unchanged.
        scale, shift = self.modulation(F.silu(conditioning.embeddings)).chunk(2, dim=-1)
        scale, shift = ((1 + scale).to(hidden.dtype), shift.to(hidden.dtype))
        if self._should_use_runs(hidden, conditioning):
            # One pass that normalises and modulates; what it gives is copied while it is still in a cache.
            out = torch.empty_like(hidden)
            for start, stop, step in conditioning.runs:
                out[start:stop] = self._normed(hidden[start:stop], scale[step], shift[step])
            return out
        shape = (-1, *([1] * (hidden.dim() - 2)), self.width)
        normed = self._normed(hidden)
        return normed * scale[conditioning.index].view(shape) + shift[conditioning.index].view(shape)

    def _normed(
        self, hidden: torch.Tensor, scale: torch.Tensor | None = None, shift: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Normalise `(..., width)`, and scale and shift it by `(width,)` where they are given."""
        if self.groups == 1:
            return F.layer_norm(hidden, (self.width,), scale, shift, self.eps)
        split = hidden.unflatten(-1, (self.groups, -1))
        normed = F.layer_norm(split, split.shape[-1:], eps=self.eps).flatten(-2)
        return normed if scale is None or shift is None else normed.mul_(scale).add_(shift)

    @staticmethod
    def _should_use_runs(hidden: torch.Tensor, conditioning: Conditioning) -> bool:
        if hidden.device.type != "cpu" or torch.is_grad_enabled():
            return False
        return hidden.numel() >= _LARGE_RUN * len(conditioning.runs)


def causal_mask(
    steps: int, past: int, window: int | None, dtype: torch.dtype, device: torch.device
) -> torch.Tensor | None:
    """Additive mask `(1, 1, T, P + T)`, or None where every query may see every key.

    Query `i` stands at position `past + i` and sees positions `past + i - window + 1 .. past + i`.
    """
    query = torch.arange(past, past + steps, device=device)[:, None]
    key = torch.arange(past + steps, device=device)[None, :]
    hidden = key > query
    if window is not None:
        hidden |= key <= query - window
    if not bool(hidden.any()):
        return None
    mask = torch.zeros(steps, past + steps, dtype=dtype, device=device)
    return mask.masked_fill_(hidden, torch.finfo(dtype).min)[None, None]


class PVCTemporalAttention(nn.Module):
    """Causal attention over the steps of each clip, at every position on its own."""

    is_causal = True

    def __init__(self, config: PVCVisionConfig) -> None:
        super().__init__()
        self.config = config
        self.width = config.hidden_size
        self.num_heads = config.num_attention_heads
        self.head_dim = self.width // self.num_heads
        self.q_proj = ProjectionLinear(self.width, self.width)
        self.k_proj = ProjectionLinear(self.width, self.width)
        self.v_proj = ProjectionLinear(self.width, self.width)
        self.projection_layer = ZeroLinear(self.width, self.width)

    def forward(
        self, hidden: torch.Tensor, layout: ClipLayout, past: KeyValue | None, use_cache: bool
    ) -> tuple[torch.Tensor, KeyValue | None]:
        """Packed `(R, N, D)` to the same shape, and the keys and values to remember.

        With `past` (or `use_cache`) the layout has exactly one group: equally many steps for every clip.
        """
        query, key, value = self.q_proj(hidden), self.k_proj(hidden), self.v_proj(hidden)
        present: KeyValue | None = None
        outputs = []
        for group in layout.groups:
            q, k, v = (self._time_major(tensor, group) for tensor in (query, key, value))
            if past is not None:
                k, v = torch.cat((past[0], k)), torch.cat((past[1], v))
            outputs.append(self._attend(q, k, v, layout.window).reshape(-1, *hidden.shape[1:]))
            if use_cache:
                present = (keep_recent(k, layout.window), keep_recent(v, layout.window))
        attended = outputs[0] if len(outputs) == 1 else torch.cat(outputs)
        return self.projection_layer(attended), present

    @staticmethod
    def _time_major(tensor: torch.Tensor, group: Group) -> torch.Tensor:
        """Rows of one group as `(T, C * N, D)`, a view."""
        return tensor[group.rows].view(group.steps, -1, tensor.shape[-1])

    def _attend(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, window: int | None) -> torch.Tensor:
        """`(T, C N, D)` queries over `(P + T, C N, D)` keys and values to `(T, C N, D)`."""
        steps, past = len(query), len(key) - len(query)
        implementation = self.config._attn_implementation or "eager"
        if implementation in ("sdpa", MATMUL) and should_use_matmul_over_time(query, len(key)):
            mask = causal_mask(steps, past, window, query.dtype, query.device)
            return attention_over_time(query, key, value, None if mask is None else mask[0, 0], self.num_heads)
        heads = [
            tensor.unflatten(-1, (self.num_heads, self.head_dim)).permute(1, 2, 0, 3)  # (C N, H, T, D / H), strided
            for tensor in (query, key, value)
        ]
        flash = "flash" in implementation
        windowed = window is not None and past + steps > window
        options: dict[str, Any] = {"is_causal": True}
        if flash:
            mask = None
            if windowed:
                options["sliding_window"] = window
        elif implementation in ("sdpa", MATMUL) and past == 0 and not windowed:
            mask = None  # the kernel's own causal mask: fewer reads, the same result
        else:
            mask = causal_mask(steps, past, window, query.dtype, query.device)
            options["is_causal"] = False
        attention = ALL_ATTENTION_FUNCTIONS.get_interface(implementation, eager_attention_forward)
        pieces = []
        for part in zip(*(tensor.split(MAX_ATTENTION_BATCH) for tensor in heads), strict=True):
            attended, _ = attention(self, *part, mask, scaling=self.head_dim**-0.5, dropout=0.0, **options)
            pieces.append(attended.flatten(2))
        joined = pieces[0] if len(pieces) == 1 else torch.cat(pieces)
        return joined.transpose(0, 1)  # (C N, T, D) -> (T, C N, D)


class PVCTemporalBlock(nn.Module):
    """AdaLN and temporal attention; what it returns is added to the hidden states."""

    def __init__(self, config: PVCVisionConfig) -> None:
        super().__init__()
        self.norm = AdaptiveLayerNorm(config.hidden_size, config.hidden_size, config.layer_norm_eps)
        self.attention = PVCTemporalAttention(config)

    def forward(
        self,
        hidden: torch.Tensor,
        conditioning: Conditioning,
        layout: ClipLayout,
        past: KeyValue | None = None,
        use_cache: bool = False,
    ) -> tuple[torch.Tensor, KeyValue | None]:
        return self.attention(self.norm(hidden, conditioning), layout, past, use_cache)


__all__ = [
    "AdaptiveLayerNorm",
    "Conditioning",
    "PVCTemporalAttention",
    "PVCTemporalBlock",
    "TimestepEmbedding",
]
