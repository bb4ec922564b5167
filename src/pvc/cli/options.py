"""Options that are the same in several commands."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer


class Dtype(StrEnum):
    """Precision of a model's weights, by torch's names; `auto` is decided by `pvc.checkpoint.precision`."""

    auto = "auto"
    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


DtypeOption = Annotated[
    Dtype,
    typer.Option(
        help="Precision of the weights. auto: bfloat16 on a GPU; on a CPU float32, or bfloat16 where the checkpoint is "
        "stored so, has 100 million parameters or more, and the CPU has instructions for it."
    ),
]

__all__ = ["Dtype", "DtypeOption"]
