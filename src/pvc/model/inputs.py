"""Reads grids and steps of images and videos, and refuses the ones that do not add up. Called by `modeling.py`."""

from __future__ import annotations

import inspect
from collections.abc import Sequence

import torch
from transformers.models.internvl.modeling_internvl import InternVLModel

from pvc.errors import MismatchError, UsageError
from pvc.model.config import PVCConfig

# What transformers calls a language model's cache: `past_key_values` up to 5.19 and beyond, `cache` of late, with a
# warning for the old name that 5.40 is to make an error.
TEMPORAL_CACHE = "cache" if "cache" in inspect.signature(InternVLModel.forward).parameters else "past_key_values"


def clip_sizes(grid: torch.Tensor | None, stored: int, what: str, default: list[int]) -> list[int]:
    """First column of an `(items, 3)` grid: tiles of every image, or frames of every video.

    Raises:
        MismatchError: they do not sum to the `stored` frames that were passed.
    """
    if grid is None:
        return default
    rows = [[int(value) for value in row] for row in grid.tolist()]
    sizes = [row[0] for row in rows]
    if any(len(row) != 3 or row[0] < 1 or row[1:] != [1, 1] for row in rows):
        raise MismatchError(f"every row of the grid must be [{what}, 1, 1] with at least 1 of them, not {rows}")
    if sum(sizes) != stored:
        raise MismatchError(f"the grid has {sum(sizes)} {what}, but {stored} {what} were passed")
    return sizes


def steps_per_tile(image_steps: torch.Tensor | int | None, tiles: Sequence[int], config: PVCConfig) -> list[int]:
    """Steps of every tile: `image_steps` is one number for all, one per tile `(sum of tiles,)`, or the config's.

    Raises:
        MismatchError: not as many entries as tiles, or different steps within one image.
        UsageError: fewer than one step, or more than the temporal window holds.
    """
    total = sum(tiles)
    if image_steps is None or isinstance(image_steps, int):
        steps = [image_steps if image_steps is not None else config.image_steps] * total
    else:
        steps = [int(step) for step in image_steps.flatten().tolist()]
    if len(steps) != total:
        raise MismatchError(f"image_steps has {len(steps)} entries, but there are {total} tiles")
    window = config.vision_config.temporal_window
    if min(steps, default=1) < 1 or (window is not None and max(steps, default=1) > window):
        limit = "" if window is None else f" and at most the temporal window, {window}"
        raise UsageError(f"image_steps must be at least 1{limit}; got {min(steps)} to {max(steps)}")
    start = 0
    for image, count in enumerate(tiles):
        own = steps[start : start + count]
        if len(set(own)) > 1:
            raise MismatchError(f"the tiles of image {image} have different image_steps: {own}")
        start += count
    return steps


__all__ = ["TEMPORAL_CACHE", "clip_sizes", "steps_per_tile"]
