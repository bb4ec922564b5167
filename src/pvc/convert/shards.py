"""Writes a checkpoint: tensors to files of bounded size, and a folder that appears whole or not at all.

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
def staged(target: Path) -> Iterator[Path]:
    """A folder beside `target` that takes its place when the block is done, and is gone when it fails."""
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        yield staging
        staging.chmod(0o755)  # mkdtemp's are for the owner alone
        if target.exists():
            target.rmdir()
        staging.rename(target)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise


def refuse_existing(target: Path) -> None:
    """Raise UsageError unless `target` can be made."""
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UsageError(f"{target} exists already")


class Shards:
    """Tensors to files of bounded size, with their index."""

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder, self.limit = folder, limit
        self.kept: dict[str, torch.Tensor] = {}
        self.size = self.total = 0
        self.files: list[list[str]] = []

    def add(self, name: str, tensor: torch.Tensor) -> None:
        nbytes = tensor.numel() * tensor.element_size()
        if self.kept and self.size + nbytes > self.limit:
            self._write()
        self.kept[name] = tensor.contiguous()
        self.size += nbytes

    def _write(self) -> None:
        path = self.folder / f"{len(self.files)}.part"
        try:
            save_file(self.kept, path, metadata={"format": "pt"})
        except SafetensorError as error:  # a full disk, for one: it is no OSError there
            raise CheckpointError(f"cannot write {path}: {error}") from error
        self.files.append(list(self.kept))
        self.total += self.size
        self.kept, self.size = {}, 0

    def close(self) -> tuple[list[str], int]:
        """Names of the files and bytes of all tensors."""
        if self.kept:
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
            places = {tensor: name for name, own in zip(names, self.files, strict=True) for tensor in own}
            index = {"metadata": {"total_size": self.total}, "weight_map": places}
            (self.folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=1), encoding="utf-8")
        return names, self.total


__all__ = ["Shards", "refuse_existing", "staged"]
