"""Writing of checkpoints: tensors go to files of bounded size, and the directory appears complete or not at all.

Called by `from_internvl.py`, `from_pvc.py` and `to_internvl.py`.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from pvc.errors import CheckpointError, UsageError


@contextlib.contextmanager
def staging_directory(target: Path) -> Iterator[Path]:
    """Yield a directory beside `target` that replaces it when the block ends; if the block fails, remove it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        yield staging
        staging.chmod(0o755)  # mkdtemp allows access by its user only
        if target.exists():
            target.rmdir()
        staging.rename(target)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise


def refuse_existing(target: Path) -> None:
    """Raise UsageError if `target` is a file or a directory with content."""
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UsageError(f"{target} exists already")


class ShardWriter:
    """Writer of safetensors shards of bounded size, with their index.

    Args:
        folder: directory to write to.
        limit: bytes of a shard; a larger tensor gets a shard of its size.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder, self.limit = folder, limit
        self.pending: dict[str, torch.Tensor] = {}
        self.size = self.total = 0
        self.files: list[list[str]] = []

    def add(self, name: str, tensor: torch.Tensor) -> None:
        """Add a tensor; if the current shard would exceed the limit, write that shard first.

        Args:
            name: of the tensor in the checkpoint.
            tensor: kept in memory until its shard is written.

        Raises:
            CheckpointError: the shard cannot be written.
        """
        nbytes = tensor.numel() * tensor.element_size()
        if self.pending and self.size + nbytes > self.limit:
            self._write()
        self.pending[name] = tensor.contiguous()
        self.size += nbytes

    def _write(self) -> None:
        path = self.folder / f"{len(self.files)}.part"
        try:
            save_file(self.pending, path, metadata={"format": "pt"})
        except SafetensorError as error:  # also raised for a full disk, in place of OSError
            raise CheckpointError(f"cannot write {path}: {error}") from error
        self.files.append(list(self.pending))
        self.total += self.size
        self.pending, self.size = {}, 0

    def close(self) -> tuple[list[str], int]:
        """Write the last shard and the index, and rename the files.

        Returns:
            Names of the files, and the size of all tensors in bytes.
        """
        if self.pending:
            self._write()
        count = len(self.files)
        names = [f"model-{n + 1:05d}-of-{count:05d}.safetensors" for n in range(count)]
        if count == 1:
            names = ["model.safetensors"]
        for number, name in enumerate(names):
            part = self.folder / f"{number}.part"
            part.chmod(0o644)
            part.rename(self.folder / name)
        if count > 1:
            weight_map = {tensor: name for name, tensors in zip(names, self.files, strict=True) for tensor in tensors}
            index = {"metadata": {"total_size": self.total}, "weight_map": weight_map}
            (self.folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=1), encoding="utf-8")
        return names, self.total


__all__ = ["ShardWriter", "refuse_existing", "staging_directory"]
