"""The order of an image's visual tokens in the language model.

`step`: all tiles at step 0, then all at step 1, so that fewer steps are a prefix. `raster`: tile by tile, in the order
of the base model's tokens; step t stands for one block of every visual token's patches, and fewer steps are a subset.
Called by `features.py`, conversion and benchmarks.

T steps, K tokens per tile and step, L language width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import torch

from pvc.errors import UsageError
from pvc.model.config import PVCConfig

# Quadrants in the order of steps, as (row, column). The first two steps cover a diagonal of every square.
_QUADRANTS = ((0, 0), (1, 1), (0, 1), (1, 0))


@lru_cache
def block_positions(groups: int) -> tuple[tuple[int, int], ...]:
    """Compute which block of a visual token each step stands for.

    Four blocks have the order 0 3 1 2 of their raster numbers. Sixteen blocks are ordered by quadrant first, in that
    order, and then inside each quadrant. The first four steps therefore stand for one block of each quadrant.

    Args:
        groups: number of blocks and steps: a power of 4, such as 1, 4 or 16.

    Returns:
        `(row, column)` of the block for each step.

    Raises:
        UsageError: `groups` is not a power of 4.
    """
    depth = round(math.log(groups, 4)) if groups > 0 else -1
    if depth < 0 or 4**depth != groups:
        raise UsageError(f"{groups} blocks have no order; the number of blocks must be 1, 4 or 16")
    positions = []
    for step in range(groups):
        row = column = 0
        for level in range(depth):
            down, right = _QUADRANTS[step // 4**level % 4]
            half = 2 ** (depth - 1 - level)
            row, column = row + down * half, column + right * half
        positions.append((row, column))
    return tuple(positions)


def order_image_tokens(clips: Sequence[torch.Tensor], tiles: Sequence[int], config: PVCConfig) -> list[torch.Tensor]:
    """Order the tokens of images by `config.image_token_order`.

    Args:
        clips: one `(T, K, L)` tensor per tile; tiles of one image are consecutive and have equal T.
        tiles: number of tiles of each image.
        config: configuration of the model.

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
    """Order the `steps * tokens` tokens of a tile by the grid position of their block, `groups` steps at a time."""
    side, blocks, positions = round(tokens**0.5), round(groups**0.5), block_positions(groups)

    def get_grid_position(index: int) -> tuple[int, int, int]:
        step, token = divmod(index, tokens)
        row, column = positions[step % groups]
        return step // groups, token // side * blocks + row, token % side * blocks + column

    return sorted(range(steps * tokens), key=get_grid_position)


__all__ = ["block_positions", "order_image_tokens"]
