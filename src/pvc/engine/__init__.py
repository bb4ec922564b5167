"""The engine: answers questions about media with a loaded model. Ids and tensors, no HTTP.

`load(directory)` gives an `Engine`; `engine.chat()` a conversation.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pvc.engine.chat import Answer as Answer
    from pvc.engine.chat import Chat as Chat
    from pvc.engine.engine import Engine as Engine

_HOME = {
    "Engine": "engine",
    "Chat": "chat",
    "Answer": "chat",
    "EncodedMedia": "encode",
    "VisualState": "visual_state",
    "LiveSession": "live",
    "FrameRetention": "live",
}
__all__ = ["Answer", "Chat", "EncodedMedia", "Engine", "FrameRetention", "LiveSession", "VisualState", "load"]


def load(directory: str | Path | None = None, **options: Any) -> Engine:
    """Load a model directory (the bundled model by default); see `Engine.load` for the options."""
    return importlib.import_module("pvc.engine.engine").Engine.load(directory, **options)


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f"pvc.engine.{_HOME[name]}"), name)
    raise AttributeError(f"module 'pvc.engine' has no attribute {name!r}")
