"""PVC: images and videos through one progressive visual token compressor (arXiv 2412.09613).

`engine = pvc.load()`, `chat = engine.chat()`, `chat.ask("What does it say?", media=["sign.png"])`.

Importing this package is fast: torch and transformers are imported at the first use of a name that needs them.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pvc import errors as errors
    from pvc import media as media
    from pvc.engine import load as load
    from pvc.model.config import PVCConfig as PVCConfig
    from pvc.model.config import PVCVisionConfig as PVCVisionConfig
    from pvc.model.modeling import PVCForConditionalGeneration as PVCForConditionalGeneration
    from pvc.model.modeling import PVCModel as PVCModel
    from pvc.model.vision import PVCVisionModel as PVCVisionModel
    from pvc.processing.image import PVCImageProcessor as PVCImageProcessor
    from pvc.processing.processor import PVCProcessor as PVCProcessor
    from pvc.processing.video import PVCVideoProcessor as PVCVideoProcessor

__version__ = "0.1.0"

_CLASSES = {
    "PVCConfig": "pvc.model.config",
    "PVCVisionConfig": "pvc.model.config",
    "PVCVisionModel": "pvc.model.vision",
    "PVCModel": "pvc.model.modeling",
    "PVCForConditionalGeneration": "pvc.model.modeling",
    "PVCImageProcessor": "pvc.processing.image",
    "PVCVideoProcessor": "pvc.processing.video",
    "PVCProcessor": "pvc.processing.processor",
}
__all__ = ["__version__", "errors", "load", "media", *_CLASSES]


def __getattr__(name: str) -> Any:
    if name == "load":
        return importlib.import_module("pvc.engine").load
    if name in ("media", "errors"):
        return importlib.import_module(f"pvc.{name}")
    if name in _CLASSES:
        importlib.import_module("pvc.auto")  # a caller that has a class can use the Auto classes, too
        return getattr(importlib.import_module(_CLASSES[name]), name)
    raise AttributeError(f"module 'pvc' has no attribute {name!r}")
