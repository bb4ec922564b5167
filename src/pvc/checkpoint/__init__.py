"""Checkpoints: safetensors directories that are inspected without torch, and loaded completely or not at all.

Called by the engine, the command line, conversion and training.
"""

from __future__ import annotations

import importlib
from typing import Any

from pvc.checkpoint.files import BUNDLED, CheckpointFiles, MediaSettings

__all__ = ["BUNDLED", "CheckpointFiles", "MediaSettings", "load_checkpoint"]


def __getattr__(name: str) -> Any:
    if name == "load_checkpoint":
        return importlib.import_module("pvc.checkpoint.loading").load_checkpoint
    raise AttributeError(f"module 'pvc.checkpoint' has no attribute {name!r}")
