"""TemporalCache: what the temporal blocks remember of earlier steps, as a value.

Encoding takes a cache and returns a new one; nothing is changed in place, so an old cache stays usable (to
branch off, or to try again). Leaves out the language model's cache, which is transformers' own.
Called by `vision.py` and by the engine.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from pvc.errors import MismatchError


@dataclass(frozen=True)
class TemporalCache:
    """Keys and values of past steps, one pair per temporal layer.

    Shapes: `P` remembered steps, `C` clips, `N` positions, `D` width.

    Attributes:
        keys, values: tuples with one `(P, C * N, D)` tensor per temporal layer that is not skipped;
            `P = min(steps, window - 1)` (`P = steps` without a window).
        steps: steps encoded so far, remembered or not.
        num_clips: `C`.
        window: the temporal window the cache was made with, or None.
        total_steps: steps of the whole clip where timesteps are relative, else None.
        starts: the number of every clip's first step; empty where all start at 0.
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
        """Bytes held by keys and values."""
        return sum(tensor.numel() * tensor.element_size() for tensor in (*self.keys, *self.values))

    @property
    def max_nbytes(self) -> int | None:
        """The most bytes this cache can ever grow to, or None when there is no window to bound it."""
        if self.window is None:
            return None
        return sum(
            tensor[0].numel() * tensor.element_size() * (self.window - 1) if len(tensor) else 0
            for tensor in (*self.keys, *self.values)
        )

    def check(self, num_clips: int, layers: int, window: int | None, total_steps: int | None) -> None:
        """Raise MismatchError unless the cache belongs to such clips of such a model."""
        if num_clips != self.num_clips:
            raise MismatchError(f"the cache holds {self.num_clips} clips, but {num_clips} clips are to be continued")
        if len(self.keys) != layers:
            raise MismatchError(f"the cache holds {len(self.keys)} temporal layers, but the model uses {layers}")
        if window != self.window:
            raise MismatchError(f"the cache was made with temporal_window {self.window}, but the model has {window}")
        if None not in (total_steps, self.total_steps) and total_steps != self.total_steps:
            raise MismatchError(f"the cache was made for {self.total_steps} steps in total, not {total_steps}")


def keep_recent(tensor: torch.Tensor, window: int | None) -> torch.Tensor:
    """The part of `(P, ...)` keys or values that a later step can still see: the last `window - 1` steps.

    Copies when something is dropped: a view would keep the dropped steps' memory alive.
    """
    if window is None or len(tensor) < window:
        return tensor
    return tensor[len(tensor) - (window - 1) :].clone()


__all__ = ["TemporalCache"]
