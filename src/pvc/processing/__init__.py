"""Convert pictures, videos and chat messages to the tensors and ids that the model takes.

Files are decoded by `pvc.media`; the network is not used here. The names below are imported on first access, because
each imports transformers. Called by pvc.engine, pvc.train, pvc.convert and pvc.checkpoint.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOME = {
    "PVCImageProcessor": "image",
    "PVCVideoProcessor": "video",
    "PVCProcessor": "processor",
    "ChatTokens": "chat_tokens",
    "build_tokenizer": "tokenizer",
}
__all__ = ["ChatTokens", "PVCImageProcessor", "PVCProcessor", "PVCVideoProcessor", "build_tokenizer"]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f"pvc.processing.{_HOME[name]}"), name)
    raise AttributeError(f"module 'pvc.processing' has no attribute {name!r}")
