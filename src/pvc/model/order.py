"""The order in which the visual tokens of an image reach the language model.

`step`: all tiles at step 0, then all at step 1, so that fewer steps are a prefix. `raster`: tile by tile, in the order
of the base model's tokens; step t stands for one block of every visual token's patches, and fewer steps are a subset.
Called by `features.py`, the engine and benchmarks.

T steps, K tokens per tile and step, L language width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import torch

from pvc.errors import UsageError
from pvc.model.config import PVCConfig

# Quadrants in the order of steps, as (row, column): two steps then cover a diagonal of every square.
_QUADRANTS = ((0, 0), (1, 1), (0, 1), (1, 0))


@lru_cache
def block_positions(groups: int) -> tuple[tuple[int, int], ...]:
    """Return the `(row, column)` of the block that each of `groups` steps stands for: 1, 4 or 16 blocks, ...

    Four blocks come in the order 0 3 1 2 of their raster numbers. Sixteen take the quadrants in that order, and the
    blocks inside them, so that the first four steps show one block of each quadrant.

    Raises:
        UsageError: `groups` is not a power of 4.
    """
    depth = round(math.log(groups, 4)) if groups > 0 else -1
    if depth < 0 or 4**depth != groups:
        raise UsageError(f"{groups} blocks have no order; there must be 1, 4 or 16")
    places = []
    for step in range(groups):
        row = column = 0
        for level in range(depth):
            down, right = _QUADRANTS[step // 4**level % 4]
            half = 2 ** (depth - 1 - level)
            row, column = row + down * half, column + right * half
        places.append((row, column))
    return tuple(places)


def order_image_tokens(clips: Sequence[torch.Tensor], tiles: Sequence[int], config: PVCConfig) -> list[torch.Tensor]:
    """Order the tokens of images as `config.image_token_order` says.

    Args:
        clips: one `(T, K, L)` tensor per tile, tiles of one image in a row and of equal `T`.
        tiles: how many tiles each image has.
        config: of the model.

    Returns:
        One `(T * tiles * K, L)` tensor per image.
    """
    images, start = [], 0
    for count in tiles:
        stacked = torch.stack(list(clips[start : start + count]), dim=1)  # (T, tiles, K, L)
        start += count
        if config.image_token_order == "raster":
            order = _raster_order(len(stacked), stacked.shape[2], config.compressor_norm_groups)
            by_tile = stacked.transpose(0, 1).flatten(1, 2)  # (tiles, T * K, L)
            images.append(by_tile[:, torch.tensor(order, device=stacked.device)].flatten(0, 1))
        else:
            images.append(stacked.flatten(0, 2))
    return images


@lru_cache(maxsize=64)
def _raster_order(steps: int, tokens: int, groups: int) -> list[int]:
    """Order the `steps * tokens` tokens of a tile by their block's place in the grid, `groups` steps at a time."""
    side, blocks, places = round(tokens**0.5), round(groups**0.5), block_positions(groups)

    def place(number: int) -> tuple[int, int, int]:
        step, token = divmod(number, tokens)
        row, column = places[step % groups]
        return step // groups, token // side * blocks + row, token % side * blocks + column

    return sorted(range(steps * tokens), key=place)


__all__ = ["block_positions", "order_image_tokens"]
