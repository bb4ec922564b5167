"""The network: PVC's configuration, vision tower, compressor and composition with a language model.

Needs torch and transformers, nothing else of PVC but its errors. Importing this package is cheap; the names
below are imported when they are first touched.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOME = {
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
    if name in _HOME:
        return getattr(importlib.import_module(f"pvc.model.{_HOME[name]}"), name)
    raise AttributeError(f"module 'pvc.model' has no attribute {name!r}")
