"""Tensors of a checkpoint that are read from the file when their values are needed.

transformers maps whole files into memory while it loads. A bfloat16 checkpoint that is converted to float32 then takes
1.5 times its memory. Here every tensor is read singly, and freed once it is converted. Called by `loading.py`,
conversion and distillation.
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
        tensor: the tensor's entry in the header of `path`, as `read_header` returns it.
        rows: a slice of the first dimension without a step; by default all rows.

    Returns:
        A tensor of the stored dtype and shape, or with the requested rows only. It shares no memory with other tensors.

    Raises:
        CheckpointError: the file cannot be read, or has become shorter.
    """
    dtype, shape, start = _DTYPES.get(tensor.dtype), tensor.shape, tensor.start
    try:
        if dtype is None:  # integers and quantised values, which are rare and small
            with safe_open(path, framework="pt") as file:
                stored = file.get_tensor(tensor.name)
                return (stored if rows is None else stored[rows]).clone()
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
    """Allocate an uninitialised tensor whose memory returns to the system as soon as it is freed.

    Buffers from malloc, freed in turn with the allocation of results, would leave holes in the heap of half the size
    of the weights.
    """
    nbytes = prod(shape) * dtype.itemsize
    if nbytes < _LARGE:
        return torch.empty(shape, dtype=dtype)
    return torch.frombuffer(mmap.mmap(-1, nbytes), dtype=dtype).view(shape)


class StoredTensor:
    """One tensor of a safetensors file. Indexing reads it, because transformers reads slices of files by indexing.

    Args:
        path: the file.
        tensor: the tensor's entry in the header of `path`.
    """

    def __init__(self, path: Path, tensor: Tensor) -> None:
        self.path = path
        self.tensor = tensor

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the tensor."""
        return self.tensor.shape

    def read(self, rows: slice | None = None) -> torch.Tensor:
        """Read all values, or the requested rows of the first dimension; see `read_values`."""
        return read_values(self.path, self.tensor, rows)

    def __getitem__(self, index: Any) -> torch.Tensor:
        return self.read()[index]


def stored_tensors(files: CheckpointFiles) -> dict[str, StoredTensor]:
    """Return all tensors of a checkpoint by name, without reading their values."""
    return {tensor.name: StoredTensor(shard, tensor) for shard in files.shards for tensor in read_header(shard)[0]}


__all__ = ["StoredTensor", "read_values", "stored_tensors"]
