"""Tiny models with random weights, built like real ones. They generate meaningless answers in milliseconds.

Called by `tests/`, by benchmarks and by the tests of programs that use PVC. Media are not here; tests make them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig, PreTrainedTokenizerFast

from pvc.model.config import PVCConfig, PVCVisionConfig
from pvc.model.modeling import PVCForConditionalGeneration
from pvc.processing.image import PVCImageProcessor
from pvc.processing.processor import PVCProcessor
from pvc.processing.tokenizer import build_tokenizer
from pvc.processing.video import PVCVideoProcessor

_WORDS = ["what does it say? which shape is red? user\nassistant\nsystem\n 0.0s: "] * 4


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """Build a byte-level tokenizer with PVC's special tokens and chat template, of about 300 tokens."""
    return build_tokenizer(_WORDS, vocab_size=300)


def tiny_vision_config(**changes: Any) -> PVCVisionConfig:
    """Build the configuration of a tower: four layers of width 32, two of them temporal, and 32-px frames.

    Args:
        **changes: fields of PVCVisionConfig to change.
    """
    values: dict[str, Any] = {
        "hidden_size": 32,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "intermediate_size": 48,
        "image_size": 32,
        "patch_size": 8,
        "attention_bias": True,
        "num_temporal_layers": 2,
    }
    return PVCVisionConfig(**{**values, **changes})


def tiny_config(text: str = "qwen2", vision: dict[str, Any] | None = None, **changes: Any) -> PVCConfig:
    """Build the configuration of a model around `tiny_vision_config`.

    Args:
        text: `model_type` of any causal language model in transformers.
        vision: fields of PVCVisionConfig to change.
        **changes: fields of PVCConfig to change.
    """
    tokenizer = tiny_tokenizer()
    values: dict[str, Any] = {
        "vision_config": tiny_vision_config(**(vision or {})),
        "text_config": {
            "model_type": text,
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 8,
            "intermediate_size": 48,
            "max_position_embeddings": 8192,
            "vocab_size": len(tokenizer),
            "bos_token_id": None,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        },
        "image_token_id": tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>"),
        "video_token_id": tokenizer.convert_tokens_to_ids("<video>"),
    }
    if text == "qwen2":
        del values["text_config"]["head_dim"]
    return PVCConfig(**{**values, **changes})


def randomize(model: torch.nn.Module, seed: int = 0, scale: float = 0.3) -> torch.nn.Module:
    """Set every parameter to a random value.

    The temporal blocks of a new model are the identity, which would hide mistakes.

    Args:
        model: the model, changed in place.
        seed: seed of the values.
        scale: standard deviation of vectors and scalars. That of matrices is `3 * scale / sqrt(input width)`.

    Returns:
        The model.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            spread = scale if parameter.dim() < 2 else scale * 3 / parameter.shape[-1] ** 0.5
            parameter.copy_((noise * spread).to(parameter.dtype))
    return model


def tiny_model(
    text: str = "qwen2", seed: int = 0, attention: str = "sdpa", **changes: Any
) -> PVCForConditionalGeneration:
    """Build a tiny model in eval mode, with random weights none of which is zero.

    Args:
        text: `model_type` of the language model.
        seed: seed of the weights.
        attention: transformers' attention implementation.
        **changes: fields of PVCConfig to change, and `vision` as in `tiny_config`.
    """
    config = tiny_config(text, **changes)
    config._attn_implementation = attention
    model = PVCForConditionalGeneration(config)
    randomize(model, seed)
    # The language model needs large weights: with small ones every answer repeats one token.
    randomize(model.model.language_model, seed, scale=1.0)
    model.tie_weights()
    tokenizer = tiny_tokenizer()
    model.generation_config = GenerationConfig(
        do_sample=False,
        max_new_tokens=8,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        suppress_tokens=[config.image_token_id, config.video_token_id],
    )
    return model.eval()


def tiny_processor(config: PVCConfig | None = None, max_tiles: int = 4, num_frames: int = 6) -> PVCProcessor:
    """Build a processor for a tiny model.

    Args:
        config: configuration of the model; by default `tiny_config()`.
        max_tiles: maximum number of tiles of a picture.
        num_frames: number of frames of a video.
    """
    config = config or tiny_config()
    side = config.vision_config.image_size[0]
    size = {"height": side, "width": side}
    tokenizer = tiny_tokenizer()
    return PVCProcessor(
        PVCImageProcessor(size=size, max_patches=max_tiles, image_steps=config.image_steps),
        tokenizer,
        PVCVideoProcessor(size=size, num_frames=num_frames),
        tokens_per_frame=config.tokens_per_frame,
        chat_template=tokenizer.chat_template,
    )


def write_tiny_checkpoint(directory: str | Path, **changes: Any) -> Path:
    """Save a tiny model and its processor as a checkpoint directory for `pvc.load`.

    Args:
        directory: the directory to write.
        **changes: arguments of `tiny_model`.

    Returns:
        The directory.
    """
    model = tiny_model(**changes)
    model.save_pretrained(directory)
    tiny_processor(model.config).save_pretrained(directory)
    return Path(directory)


__all__ = [
    "randomize",
    "tiny_config",
    "tiny_model",
    "tiny_processor",
    "tiny_tokenizer",
    "tiny_vision_config",
    "write_tiny_checkpoint",
]
