"""Test doubles for PVC's own tests and for its users': tiny real models, tokenizer and processors.

Nothing is mocked: a tiny model is a whole one with few and narrow layers.
"""

from pvc.testing.tiny import (
    randomize,
    tiny_config,
    tiny_model,
    tiny_processor,
    tiny_tokenizer,
    tiny_vision_config,
    write_tiny_checkpoint,
)

__all__ = [
    "randomize",
    "tiny_config",
    "tiny_model",
    "tiny_processor",
    "tiny_tokenizer",
    "tiny_vision_config",
    "write_tiny_checkpoint",
]
