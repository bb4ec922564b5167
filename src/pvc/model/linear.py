"""Linear layers that PVC adds to its base model, with their initial values and precision.

Initial values do not depend on `initializer_range` of the base model. Official InternVL configurations have 1e-10
there, because their weights are always loaded. Called by `temporal.py`, `vision.py`, `modeling.py` and conversion.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers import initialization as init

# Standard deviation of the temporal attention's query, key and value projections.
PROJECTION_STD = 0.02


class ZeroLinear(nn.Linear):
    """A linear layer that starts at zero, so that a new temporal block is the identity.

    It is a separate class because transformers initialises only modules that have direct parameters. The block that
    contains this layer has none.
    """


class ProjectionLinear(nn.Linear):
    """A linear layer that starts at random with `PROJECTION_STD`."""


class Float32Linear(nn.Module):
    """A linear layer in float32 (or float64), also inside a model of lower precision and under autocast.

    Scales and shifts pick channels by values of exactly 0 and 1. In bfloat16 they leak 1e-3 to 2e-2 between channels,
    and a converted LayerNorm weight w, stored as w - 1, would be rounded. It starts at random with 1/sqrt(fan-in).

    It is not an `nn.Linear`, because quantizers, vLLM and `target_modules="all-linear"` replace every `nn.Linear`.

    Args:
        in_features: width of the input.
        out_features: width of the output.
    """

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        dtype = torch.float64 if torch.get_default_dtype() == torch.float64 else torch.float32
        self.weight = nn.Parameter(torch.empty(out_features, in_features, dtype=dtype))
        self.bias = nn.Parameter(torch.empty(out_features, dtype=dtype))
        if not self.weight.is_meta:
            init_linear(self)

    def extra_repr(self) -> str:
        """Return the widths for `repr`, as `nn.Linear` does."""
        return f"in_features={self.in_features}, out_features={self.out_features}"

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> Any:
        def apply_in_float32(tensor: torch.Tensor) -> torch.Tensor:
            result = fn(tensor)
            if tensor.is_floating_point() and result.dtype in (torch.bfloat16, torch.float16):
                return result.to(tensor.dtype) if result.is_meta else tensor.to(result.device)
            return result

        return super()._apply(apply_in_float32, recurse)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Map `(..., in)` of any dtype to `(..., out)` of the weight's dtype."""
        with torch.autocast(hidden.device.type, enabled=False):
            return F.linear(hidden.to(self.weight.dtype), self.weight, self.bias)


class ZeroFloat32Linear(Float32Linear):
    """A `Float32Linear` that starts at zero."""


def init_linear(module: nn.Module) -> None:
    """Initialise a layer of this file; other modules are not changed."""
    if isinstance(module, (ZeroLinear, ZeroFloat32Linear)):
        init.zeros_(module.weight)
    elif isinstance(module, Float32Linear):
        init.normal_(module.weight, std=module.in_features**-0.5)
    elif isinstance(module, ProjectionLinear):
        init.normal_(module.weight, std=PROJECTION_STD)
    else:
        return
    init.zeros_(module.bias)


def is_zero(module: Any) -> bool:
    """Check whether a linear layer adds nothing: its weight and bias are plain tensors of zeros.

    A layer that is wrapped (adapters), packed (quantised) or sharded over processes counts as one that adds something.
    """
    if not isinstance(module, nn.Linear) or hasattr(module, "base_layer"):
        return False
    tensors = [tensor for tensor in (module.weight, module.bias) if tensor is not None]
    is_plain = all(type(tensor.data) is torch.Tensor and tensor.is_floating_point() for tensor in tensors)
    if not is_plain or any(tensor.is_meta or not tensor.numel() for tensor in tensors):
        return False
    return not any(bool(tensor.any()) for tensor in tensors)


__all__ = ["Float32Linear", "ProjectionLinear", "ZeroFloat32Linear", "ZeroLinear", "init_linear", "is_zero"]
