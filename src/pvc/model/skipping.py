"""Which temporal blocks are the identity, so that inference need not run them.

A converted model's temporal blocks add zero until it is trained. Called by `vision.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from pvc.model.linear import is_zero


class TemporalSkip:
    """Counts the leading temporal blocks that are the identity; reads weights again only after they change.

    A change is recognised by the module and tensor objects, their memory and torch's version counters. An optimizer may
    write past the counters; `forget` must be called between training and inference.
    """

    def __init__(self) -> None:
        self._key: tuple[Any, ...] | None = None
        self._count = 0

    def forget(self) -> None:
        """Read the weights at the next call."""
        self._key = None

    def count(self, blocks: Sequence[Any]) -> int:
        """Return how many of the first `blocks` (of type `PVCTemporalBlock`) add zero to the hidden states."""
        outputs: list[Any] = [block.attention.projection_layer for block in blocks]
        key = tuple(part for module in outputs for part in _identity(module))
        if key != self._key:
            zero = [is_zero(module) for module in outputs]
            self._count = zero.index(False) if False in zero else len(zero)
            self._key = key
        return self._count


def _identity(module: Any) -> list[Any]:
    """What changes when a layer is replaced or its weights are written to."""
    found: list[Any] = [id(module)]
    for tensor in module.parameters(recurse=False):
        # A tensor that was made in inference mode has no counter; it is read every time.
        version = object() if tensor.is_inference() else tensor._version
        place = 0 if tensor.is_meta or type(tensor.data) is not torch.Tensor else tensor.data_ptr()
        found += [id(tensor), place, version]
    return found


__all__ = ["TemporalSkip"]
