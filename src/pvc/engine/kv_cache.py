"""A cache of keys and values with room to grow: a token is written into it, where transformers' own copies all of it.

That copy is as large as the cache, for every token of every layer. B rows, H heads, L positions, d channels of a head.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

SPARE_POSITIONS = 64  # positions that are added at a time


class GrowableLayer(DynamicLayer):
    """Keys and values `(B, H, L, d)` that are the beginning of larger tensors.

    They may be replaced from outside at any time; the next token then moves them into new ones with room.
    """

    def __init__(self, layer: DynamicLayer) -> None:
        super().__init__()
        self.lazy_initialization(layer.keys, layer.values)
        self.keys, self.values = layer.keys, layer.values
        self._room: tuple[torch.Tensor, torch.Tensor] | None = None
        self._mine: torch.Tensor | None = None

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Add `(B, H, new, d)`; returns all of them."""
        length, more = self.keys.shape[2], key_states.shape[2]
        if self._room is None or self.keys is not self._mine or self._room[0].shape[2] < length + more:
            self._room = (_larger(self.keys, more), _larger(self.values, more))
        keys, values = self._room
        keys[:, :, length : length + more] = key_states
        values[:, :, length : length + more] = value_states
        self.keys, self.values = keys[:, :, : length + more], values[:, :, : length + more]
        self._mine = self.keys
        return self.keys, self.values


def _larger(tensor: torch.Tensor, more: int) -> torch.Tensor:
    rows, heads, length, channels = tensor.shape
    made = tensor.new_empty(rows, heads, length + more + SPARE_POSITIONS, channels)
    made[:, :, :length] = tensor
    return made


def make_growable(cache: DynamicCache) -> DynamicCache:
    """The same cache, whose layers are DynamicLayers, with room to grow."""
    cache.layers = [GrowableLayer(layer) for layer in cache.layers]  # type: ignore[arg-type]
    return cache


__all__ = ["SPARE_POSITIONS", "GrowableLayer", "make_growable"]
