"""The temporal block: timestep embedding, adaptive layer norm (AdaLN) and causal attention over time.

Source: arXiv 2412.09613, sections 3.2 and 3.3. The spatial layers are InternVL's, in `vision.py`. Called by
`vision.py` and `compressor.py`.

R packed rows (all steps of all clips), T steps, P cached steps, C clips, N positions, D width, H heads,
U distinct timesteps.
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

# CUDA's attention kernels use the batch as a grid dimension of at most 65,535 (pytorch issue 142228). C * N exceeds
# this at 64 clips of 448 px.
MAX_ATTENTION_BATCH = 65_535

# From this number of values in a run, one call per run costs less than the passes over memory that it saves.
_MIN_RUN_VALUES = 2**17

KeyValue = tuple[torch.Tensor, torch.Tensor]


def sinusoid(timesteps: torch.Tensor, scale: float) -> torch.Tensor:
    """Compute 128 cosines, then 128 sines of `scale * t * 10000^(-k / 128)`.

    Angles are float64: at a scale of 100, bf16 cannot distinguish step 40 from step 41.

    Args:
        timesteps: `(U,)`.
        scale: factor before the sinusoid.

    Returns:
        `(U, 256)` float64.
    """
    half = SINUSOID_WIDTH // 2
    frequencies = torch.exp(
        -math.log(10000.0) * torch.arange(half, dtype=torch.float64, device=timesteps.device) / half
    )
    angles = scale * timesteps.to(torch.float64)[:, None] * frequencies
    return torch.cat((angles.cos(), angles.sin()), dim=-1)


class TimestepEmbedding(nn.Module):
    """Timestep embedding `e_t = MLP(sinusoid(t))`, shared by the whole model.

    Args:
        config: configuration of the tower.
    """

    def __init__(self, config: PVCVisionConfig) -> None:
        super().__init__()
        self.scale = float(config.timestep_scale or 1.0)
        self.linear_1 = Float32Linear(SINUSOID_WIDTH, config.hidden_size)
        self.linear_2 = Float32Linear(config.hidden_size, config.hidden_size)

    def forward(self, timesteps: torch.Tensor) -> torch.Tensor:
        """Embed `(U,)` timesteps to `(U, D)`."""
        return self.linear_2(F.silu(self.linear_1(sinusoid(timesteps, self.scale))))


class Conditioning:
    """The timestep embeddings that AdaLN is conditioned on in one call.

    Args:
        embeddings: `(U, D)` embeddings of the distinct timesteps.
        index: `(R,)` int64, the timestep of each packed row as an index into `embeddings`.
    """

    def __init__(self, embeddings: torch.Tensor, index: torch.Tensor) -> None:
        self.embeddings = embeddings
        self.index = index

    @cached_property
    def runs(self) -> list[tuple[int, int, int]]:
        """Runs of consecutive rows with one timestep, as `(start, stop, index of the timestep)`."""
        indices, counts = torch.unique_consecutive(self.index, return_counts=True)
        stops = counts.cumsum(0).tolist()
        return list(zip([0, *stops[:-1]], stops, indices.tolist(), strict=True))


def get_timesteps(
    layout: ClipLayout, config: PVCVisionConfig, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute the timesteps of the packed rows.

    "index": number of the step, at most `timestep_limit`. "cyclic": number modulo `timestep_period`.
    "relative": number / steps of the clip.

    Args:
        layout: the rows of each clip's steps.
        config: configuration of the tower.
        device: device of the results.

    Returns:
        The distinct timesteps, `(U,)` float64, and the index of each row's timestep, `(R,)` int64.
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
    positions = {value: position for position, value in enumerate(distinct)}
    index = torch.tensor([positions[value] for value in values], device=device)
    return torch.tensor(distinct, dtype=torch.float64, device=device), index


class AdaptiveLayerNorm(nn.Module):
    """`LayerNorm(x) * (1 + scale(e)) + shift(e)`, with a LayerNorm that has no affine parameters.

    Args:
        width: number of channels.
        embedding_width: width of the timestep embedding.
        eps: epsilon of the LayerNorm.
        groups: number of equal, contiguous groups of channels that are normalised separately.
    """

    def __init__(self, width: int, embedding_width: int, eps: float, groups: int = 1) -> None:
        super().__init__()
        self.width, self.groups, self.eps = width, groups, eps
        self.modulation = ZeroFloat32Linear(embedding_width, 2 * width)

    def forward(self, hidden: torch.Tensor, conditioning: Conditioning) -> torch.Tensor:
        """Normalise and modulate; scale and shift are computed once per distinct timestep.

        Args:
            hidden: `(R, ..., width)`.
            conditioning: timestep embeddings of the packed rows.

        Returns:
            A tensor of the same shape and dtype.
        """
        # 1 + scale is float32 in bf16 models, too: a converted LayerNorm weight w = 1 + (w - 1) then stays unchanged.
        scale, shift = self.modulation(F.silu(conditioning.embeddings)).chunk(2, dim=-1)
        scale, shift = ((1 + scale).to(hidden.dtype), shift.to(hidden.dtype))
        if self._should_use_runs(hidden, conditioning):
            # One pass normalises and modulates; its result is copied while it is still in the CPU cache.
            out = torch.empty_like(hidden)
            for start, stop, step in conditioning.runs:
                out[start:stop] = self._normalise(hidden[start:stop], scale[step], shift[step])
            return out
        shape = (-1, *([1] * (hidden.dim() - 2)), self.width)
        normed = self._normalise(hidden)
        return normed * scale[conditioning.index].view(shape) + shift[conditioning.index].view(shape)

    def _normalise(
        self, hidden: torch.Tensor, scale: torch.Tensor | None = None, shift: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Normalise `(..., width)`, and apply a scale and shift of `(width,)` if they are passed."""
        if self.groups == 1:
            return F.layer_norm(hidden, (self.width,), scale, shift, self.eps)
        split = hidden.unflatten(-1, (self.groups, -1))
        normed = F.layer_norm(split, split.shape[-1:], eps=self.eps).flatten(-2)
        return normed if scale is None or shift is None else normed.mul_(scale).add_(shift)

    @staticmethod
    def _should_use_runs(hidden: torch.Tensor, conditioning: Conditioning) -> bool:
        """Check whether one call per run of equal timesteps is faster than one call for all rows."""
        if hidden.device.type != "cpu" or torch.is_grad_enabled():
            return False
        return hidden.numel() >= _MIN_RUN_VALUES * len(conditioning.runs)


def causal_mask(
    steps: int, past: int, window: int | None, dtype: torch.dtype, device: torch.device
) -> torch.Tensor | None:
    """Build the mask of causal attention with a window.

    Query `i` is at step `past + i` and sees steps `past + i - window + 1 .. past + i`.

    Args:
        steps: number of queries T.
        past: number of cached steps P.
        window: number of steps that a query sees, itself included; None means all past steps.
        dtype: dtype of the mask.
        device: device of the mask.

    Returns:
        Additive mask `(1, 1, T, P + T)`, or None if every query sees every key.
    """
    query = torch.arange(past, past + steps, device=device)[:, None]
    key = torch.arange(past + steps, device=device)[None, :]
    invisible = key > query
    if window is not None:
        invisible |= key <= query - window
    if not bool(invisible.any()):
        return None
    mask = torch.zeros(steps, past + steps, dtype=dtype, device=device)
    return mask.masked_fill_(invisible, torch.finfo(dtype).min)[None, None]


class PVCTemporalAttention(nn.Module):
    """Causal attention over the steps of each clip, separately at every position.

    Args:
        config: configuration of the tower.
    """

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
        """Attend over time.

        With `past` or `use_cache`, the layout has exactly one group: all clips have equally many steps.

        Args:
            hidden: `(R, N, D)` packed rows.
            layout: the rows of each clip's steps.
            past: keys and values of past steps, `(P, C * N, D)` each, or None.
            use_cache: return keys and values for the next call.

        Returns:
            A tensor of the same shape, and keys and values for the next call or None.
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
        """View the rows of one group as `(T, C * N, D)`."""
        return tensor[group.rows].view(group.steps, -1, tensor.shape[-1])

    def _attend(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, window: int | None) -> torch.Tensor:
        """Attend `(T, C N, D)` queries to `(P + T, C N, D)` keys and values; returns `(T, C N, D)`."""
        steps, past = len(query), len(key) - len(query)
        implementation = self.config._attn_implementation or "eager"
        if implementation in ("sdpa", MATMUL) and should_use_matmul_over_time(query, len(key)):
            mask = causal_mask(steps, past, window, query.dtype, query.device)
            return attention_over_time(query, key, value, None if mask is None else mask[0, 0], self.num_heads)
        heads = [
            tensor.unflatten(-1, (self.num_heads, self.head_dim)).permute(1, 2, 0, 3)  # (C N, H, T, D / H), strided
            for tensor in (query, key, value)
        ]
        is_windowed = window is not None and past + steps > window
        options: dict[str, Any] = {"is_causal": True}
        if "flash" in implementation:
            mask = None
            if is_windowed:
                options["sliding_window"] = window
        elif implementation in ("sdpa", MATMUL) and past == 0 and not is_windowed:
            mask = None  # the kernel applies the causal mask: fewer reads, the same result
        else:
            mask = causal_mask(steps, past, window, query.dtype, query.device)
            options["is_causal"] = False
        attention = ALL_ATTENTION_FUNCTIONS.get_interface(implementation, eager_attention_forward)
        chunks = []
        for chunk in zip(*(tensor.split(MAX_ATTENTION_BATCH) for tensor in heads), strict=True):
            attended, _ = attention(self, *chunk, mask, scaling=self.head_dim**-0.5, dropout=0.0, **options)
            chunks.append(attended.flatten(2))
        joined = chunks[0] if len(chunks) == 1 else torch.cat(chunks)
        return joined.transpose(0, 1)  # (C N, T, D) -> (T, C N, D)


class PVCTemporalBlock(nn.Module):
    """AdaLN and temporal attention. The caller adds the result to the hidden states.

    Args:
        config: configuration of the tower.
    """

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
        """Normalise the hidden states and attend over time.

        Args:
            hidden: `(R, N, D)` packed rows.
            conditioning: timestep embeddings of the packed rows.
            layout: the rows of each clip's steps.
            past: keys and values of past steps, or None.
            use_cache: return keys and values for the next call.

        Returns:
            A tensor of the same shape, and keys and values for the next call or None.
        """
        return self.attention(self.norm(hidden, conditioning), layout, past, use_cache)


__all__ = [
    "AdaptiveLayerNorm",
    "Conditioning",
    "PVCTemporalAttention",
    "PVCTemporalBlock",
    "TimestepEmbedding",
]
