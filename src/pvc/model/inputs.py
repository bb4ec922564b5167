"""Checks of the model's inputs; grids and steps of images and videos are read here.

Called by `modeling.py`, `features.py`, the engine, `pvc bench` and distillation.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from transformers.models.internvl.modeling_internvl import InternVLModel

from pvc.errors import MismatchError, UsageError
from pvc.model.config import PVCConfig

# Name of the KV cache argument in the installed transformers. It is `past_key_values` in 5.19 and some later versions.
# Newer ones use `cache` and warn about the old name, which becomes an error in 5.40.
TEMPORAL_CACHE = "cache" if "cache" in inspect.signature(InternVLModel.forward).parameters else "past_key_values"


def check_inputs(
    input_ids: torch.Tensor | None,
    inputs_embeds: torch.Tensor | None,
    pixels: Mapping[str, torch.Tensor | None],
    encoded: Mapping[str, Any],
) -> None:
    """Check that the text and each kind of media are passed in one form only.

    Args:
        input_ids: ids of the prompt, or None.
        inputs_embeds: embeddings of the prompt, or None.
        pixels: pixels of each kind of media, "image" or "video"; None where there are none.
        encoded: encoder outputs of each kind, if passed in place of pixels.

    Raises:
        UsageError: an input is missing, or passed in both forms.
    """
    if (input_ids is None) == (inputs_embeds is None):
        raise UsageError("pass exactly one of input_ids and inputs_embeds")
    for kind, values in pixels.items():
        if values is not None and encoded.get(kind) is not None:
            raise UsageError(f"pass pixels or mm_encoder_outputs for {kind}s, not both")


def clip_sizes(grid: torch.Tensor | None, stored: int, what: str, default: list[int]) -> list[int]:
    """Read the number of tiles of every image, or of frames of every video, from a grid.

    Args:
        grid: `(items, 3)` int64, rows `[count, 1, 1]`; or None.
        stored: number of tiles or frames that were passed.
        what: "tiles" or "frames", for error messages.
        default: the result without a grid.

    Returns:
        One count per image or video.

    Raises:
        MismatchError: a row has another form, or the counts do not sum to `stored`.
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
    """Compute the number of steps of every tile.

    Args:
        image_steps: one number for all tiles, or `(sum of tiles,)`, or None for `config.image_steps`.
        tiles: number of tiles of every image.
        config: configuration of the model.

    Returns:
        One number per tile.

    Raises:
        MismatchError: the entries are not as many as the tiles, or differ within an image.
        UsageError: a number is below 1 or above the temporal window.
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
        steps_of_image = steps[start : start + count]
        if len(set(steps_of_image)) > 1:
            raise MismatchError(f"the tiles of image {image} have different image_steps: {steps_of_image}")
        start += count
    return steps


__all__ = ["TEMPORAL_CACHE", "check_inputs", "clip_sizes", "steps_per_tile"]
