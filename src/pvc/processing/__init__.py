"""From pictures, videos and chat messages to the tensors and ids that the model takes.

Uses `pvc.media` for bytes, knows nothing of the network. The names below are imported when first touched, since
each pulls transformers in.
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
