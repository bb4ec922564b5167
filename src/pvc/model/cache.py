"""TemporalCache: the keys and values of past steps in the temporal blocks, as an immutable value.

Encoding takes a cache and returns a new one. An old cache stays valid, so a caller can branch from it or retry.
The language model's KV cache is not here; it is the one of transformers. Called by `vision.py` and by the engine.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from pvc.errors import MismatchError


@dataclass(frozen=True)
class TemporalCache:
    """Keys and values of past steps, one pair per temporal layer.

    Shapes: P cached steps, C clips, N positions, D width. P is `min(steps, window - 1)`, or `steps` without a window.

    Attributes:
        keys: one `(P, C * N, D)` tensor for each temporal layer that is not skipped.
        values: as `keys`.
        steps: steps encoded so far, cached or not.
        num_clips: number of clips C.
        window: the temporal window of the encoding calls, or None.
        total_steps: steps of the whole clip if timesteps are relative, else None.
        starts: `(C,)` number of each clip's first step; empty if all clips start at 0.
    """

    keys: tuple[torch.Tensor, ...]
    values: tuple[torch.Tensor, ...]
    steps: int
    num_clips: int
    window: int | None
    total_steps: int | None = None
    starts: tuple[int, ...] = ()

    @property
    def nbytes(self) -> int:
        """Size of keys and values in bytes."""
        return sum(tensor.numel() * tensor.element_size() for tensor in (*self.keys, *self.values))

    @property
    def max_nbytes(self) -> int | None:
        """Maximum size that this cache can reach, in bytes; None without a window."""
        if self.window is None:
            return None
        return sum(
            tensor[0].numel() * tensor.element_size() * (self.window - 1) if len(tensor) else 0
            for tensor in (*self.keys, *self.values)
        )

    def check(self, num_clips: int, layers: int, window: int | None, total_steps: int | None) -> None:
        """Check that the cache fits the clips and the model of an encoding call.

        Args:
            num_clips: number of clips in the call.
            layers: number of temporal layers that the model runs.
            window: the temporal window of the call, or None.
            total_steps: steps of the whole clip, or None if unknown.

        Raises:
            MismatchError: one of the values differs from that of the cache.
        """
        if num_clips != self.num_clips:
            raise MismatchError(f"the cache holds {self.num_clips} clips, but the call continues {num_clips} clips")
        if len(self.keys) != layers:
            raise MismatchError(f"the cache holds {len(self.keys)} temporal layers, but the model uses {layers}")
        if window != self.window:
            raise MismatchError(f"the cache was made with temporal_window {self.window}, but the model has {window}")
        if None not in (total_steps, self.total_steps) and total_steps != self.total_steps:
            raise MismatchError(f"the cache was made for {self.total_steps} steps in total, not {total_steps}")


def keep_recent(tensor: torch.Tensor, window: int | None) -> torch.Tensor:
    """Drop the steps that later steps cannot see.

    If steps are dropped, the rest is copied: a view would hold the memory of the dropped steps.

    Args:
        tensor: `(P, ...)` keys or values.
        window: the temporal window, or None.

    Returns:
        The last `window - 1` steps, or all of them without a window.
    """
    if window is None or len(tensor) < window:
        return tensor
    return tensor[len(tensor) - (window - 1) :].clone()


__all__ = ["TemporalCache"]
