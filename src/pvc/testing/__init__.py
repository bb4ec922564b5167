"""Tiny models, tokenizers and processors for the tests of PVC and of programs that use it.

Nothing is mocked: a tiny model is a complete model with few, narrow layers.
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
