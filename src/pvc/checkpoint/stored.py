"""Tensors of a checkpoint that are read from the file when their values are needed.

transformers maps whole files into memory while it loads: a bfloat16 checkpoint that becomes float32 is held one and a
half times. Here every tensor is read alone, and released once it is converted. Called by `loading.py` and `convert`.
"""

from __future__ import annotations

import mmap
from math import prod
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from pvc.checkpoint.files import CheckpointFiles, Tensor, read_header
from pvc.errors import CheckpointError

_LARGE = 2**16  # bytes
_DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def read_values(path: Path, tensor: Tensor, rows: slice | None = None) -> torch.Tensor:
    """Read one tensor of a safetensors file, without mapping the file into memory.

    Args:
        path: the file.
        tensor: its entry in the header of `path`, as `read_header` returns it.
        rows: only these, of the first dimension; without a step.

    Returns:
        Values of the stored dtype and shape (of `rows`: of so many rows), in memory of their own.

    Raises:
        CheckpointError: the file cannot be read, or has become shorter.
    """
    dtype, shape, start = _DTYPES.get(tensor.dtype), tensor.shape, tensor.start
    try:
        if dtype is None:  # integers and what is quantised: rare, and small
            with safe_open(path, framework="pt") as file:
                whole = file.get_tensor(tensor.name)
                return (whole if rows is None else whole[rows]).clone()
        if rows is not None:
            first, end, _ = rows.indices(shape[0])
            start += first * (tensor.nbytes // shape[0])
            shape = (max(0, end - first), *shape[1:])
        values = _empty(shape, dtype)
        with path.open("rb") as file:
            file.seek(start)
            count = file.readinto(values.flatten().view(torch.uint8).numpy().data)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"cannot read {tensor.name} in {path}: {error}") from error
    if count != values.nbytes:
        raise CheckpointError(f"{path} is cut short: {tensor.name} has {count} bytes of {values.nbytes}")
    return values


def _empty(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """Return uninitialised memory that goes back to the system as soon as it is released.

    Buffers that are read, converted and freed in turn with the results would leave holes in malloc's heap, half as
    large as the weights.
    """
    nbytes = prod(shape) * dtype.itemsize
    if nbytes < _LARGE:
        return torch.empty(shape, dtype=dtype)
    return torch.frombuffer(mmap.mmap(-1, nbytes), dtype=dtype).view(shape)


class StoredTensor:
    """One tensor of a safetensors file. Indexing reads it, which is how transformers reads a slice of a file."""

    def __init__(self, path: Path, tensor: Tensor) -> None:
        self.path = path
        self.tensor = tensor

    @property
    def shape(self) -> tuple[int, ...]:
        return self.tensor.shape

    def read(self, rows: slice | None = None) -> torch.Tensor:
        """Read all values, or some `rows` of the first dimension; see `read_values`."""
        return read_values(self.path, self.tensor, rows)

    def __getitem__(self, index: Any) -> torch.Tensor:
        return self.read()[index]


def stored_tensors(files: CheckpointFiles) -> dict[str, StoredTensor]:
    """Return every tensor of a checkpoint by its name, unread."""
    return {tensor.name: StoredTensor(shard, tensor) for shard in files.shards for tensor in read_header(shard)[0]}


__all__ = ["StoredTensor", "read_values", "stored_tensors"]
