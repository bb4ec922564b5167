"""The network: PVC's configuration, vision tower, compressor and composition with a language model.

Imports torch, transformers and PVC's errors, and nothing else of PVC. Importing this package is fast: each name below
is imported at its first use. Called by the checkpoint, engine, train and convert packages.
"""

from __future__ import annotations

import importlib
from typing import Any

_MODULES = {
    "PVCConfig": "config",
    "PVCVisionConfig": "config",
    "TemporalCache": "cache",
    "ClipLayout": "layout",
    "PVCVisionModel": "vision",
    "PVCVisionOutput": "vision",
    "PVCModel": "modeling",
    "PVCForConditionalGeneration": "modeling",
    "PVCPreTrainedModel": "modeling",
}
__all__ = [
    "ClipLayout",
    "PVCConfig",
    "PVCForConditionalGeneration",
    "PVCModel",
    "PVCPreTrainedModel",
    "PVCVisionConfig",
    "PVCVisionModel",
    "PVCVisionOutput",
    "TemporalCache",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(importlib.import_module(f"pvc.model.{_MODULES[name]}"), name)
    raise AttributeError(f"module 'pvc.model' has no attribute {name!r}")
