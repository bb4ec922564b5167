"""Loading of a checkpoint: all tensors with their shapes, and a model and processor that fit together, or an error.

transformers would fill a missing tensor with random numbers and continue; here nothing is loaded in part. Conversion
from other formats is in `pvc.convert`. Called by the engine, training and conversion.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig
from transformers.integrations import is_deepspeed_zero3_enabled
from transformers.quantizers.auto import AUTO_QUANTIZATION_CONFIG_MAPPING
from transformers.utils import GENERATION_CONFIG_NAME
from transformers.utils import logging as transformers_logging

import pvc.auto  # noqa: F401  # registers the classes
from pvc.checkpoint.files import CheckpointFiles
from pvc.checkpoint.precision import DTYPES, default_dtype
from pvc.checkpoint.stored import stored_tensors
from pvc.errors import CheckpointError, UsageError
from pvc.model.attention import MATMUL, should_use_matmul
from pvc.model.config import PVCConfig
from pvc.model.modeling import PVCForConditionalGeneration
from pvc.processing.processor import PVCProcessor


def load_checkpoint(
    directory: str | Path | None = None,
    *,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
) -> tuple[PVCForConditionalGeneration, PVCProcessor]:
    """Load the model and processor of a checkpoint directory.

    Args:
        directory: the directory; by default that of the bundled model.
        device: by default the GPU if there is one, else the CPU.
        dtype: float32, bfloat16 or float16. By default, or with "auto", `precision.default_dtype` chooses: bfloat16 on
            a GPU; on a CPU float32, or bfloat16 for a large bfloat16 checkpoint if the CPU has instructions for it.
            Modulations are always float32.

    Returns:
        The model in eval mode, and the processor.

    Raises:
        CheckpointError: a file or tensor is missing, unknown or misshapen; model and processor do not fit together; the
            dtype is invalid.
        UsageError: the device does not exist or cannot be used.
    """
    files = CheckpointFiles(directory)
    tensors = files.tensors()  # headers first: a file that is cut short is reported before a model is built
    device = _resolve_device(device)
    if dtype is None or dtype == "auto":
        dtype = default_dtype(tensors, device.type)
    if isinstance(dtype, str):
        if dtype not in DTYPES:
            raise CheckpointError(f"dtype must be one of {', '.join(DTYPES)}, not {dtype!r}")
        dtype = getattr(torch, dtype)
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise CheckpointError(f"dtype must be a floating-point dtype of torch, not {dtype!r}")
    check_quantization(files)
    config = load_config(files)
    processor = load_processor(files)
    check_fit(config, processor)
    check_template(processor)
    model = _load_model(files, config, dtype, device).eval()
    if should_use_matmul(device, dtype):
        model.model.vision_tower.set_attn_implementation(MATMUL)
    return model, processor


def _resolve_device(device: str | torch.device | None) -> torch.device:
    """Return the device to load on, after a test allocation; by default the GPU if there is one, else the CPU."""
    try:
        resolved = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        if resolved.type == "meta":
            raise RuntimeError("meta has no memory")
        torch.empty(0, device=resolved)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = _to_one_line(error).split(".")[0]
        raise UsageError(f"device {str(device)!r} cannot be used here: {reason}") from error
    return resolved


def load_config(files: CheckpointFiles) -> PVCConfig:
    """Build the configuration of a checkpoint.

    Raises:
        CheckpointError: a value or key is invalid.
    """
    try:
        return PVCConfig.from_dict(dict(files.config))
    except Exception as error:  # a hostile or invalid file can provoke any exception in the libraries
        raise CheckpointError(f"{files.directory}/config.json: {_to_one_line(error)}") from error


def load_processor(files: CheckpointFiles) -> PVCProcessor:
    """Load the processor of a checkpoint.

    Raises:
        CheckpointError: a file is missing or invalid.
    """
    try:
        return PVCProcessor.from_pretrained(files.directory, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # as above
        raise CheckpointError(f"cannot load the processor of {files.directory}: {_to_one_line(error)}") from error


def check_quantization(files: CheckpointFiles) -> None:
    """Check that transformers supports the method of quantised weights.

    Otherwise transformers would only log the unknown method, and load the weights as if they were not quantised.

    Raises:
        CheckpointError: the method is unknown, or `quantization_config` is not an object.
    """
    settings = files.config.get("quantization_config")
    if settings is None:
        return
    where = f"{files.directory}/config.json: quantization_config"
    if not isinstance(settings, dict):
        raise CheckpointError(f"{where} must be an object with a quant_method, not {str(settings)[:80]!r}")
    method = settings.get("quant_method")
    is_bitsandbytes = bool({"load_in_4bit", "load_in_8bit"}.intersection(settings))
    if str(method) not in AUTO_QUANTIZATION_CONFIG_MAPPING and not is_bitsandbytes:
        known = ", ".join(sorted(map(str, AUTO_QUANTIZATION_CONFIG_MAPPING)))
        raise CheckpointError(f"{where} has the quant_method {str(method)[:80]!r}; transformers here knows {known}")


def _load_model(
    files: CheckpointFiles, config: PVCConfig, dtype: torch.dtype, device: torch.device
) -> PVCForConditionalGeneration:
    """Load the weights, and raise CheckpointError unless every tensor has its name and shape."""
    level = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity(logging.CRITICAL)  # missing tensors are reported by the error below
    has_progress_bar = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        model, info = _read_model(files, config, dtype)
        model.to(device)
    except ImportError as error:
        quantization = files.config.get("quantization_config")
        if quantization is None:
            raise
        raise CheckpointError(
            f"the weights of {files.directory} are quantised ({quantization.get('quant_method')}), and the package for "
            f"it is missing: {_to_one_line(error)}; install it, or load the checkpoint that was quantised"
        ) from error
    except Exception as error:  # as above
        raise CheckpointError(f"cannot load the weights of {files.directory}: {_to_one_line(error)}") from error
    finally:
        transformers_logging.set_verbosity(level)
        if has_progress_bar:
            transformers_logging.enable_progress_bar()
    for key, what in (("missing_keys", "missing"), ("unexpected_keys", "unknown"), ("mismatched_keys", "misshapen")):
        names = sorted(str(entry[0] if isinstance(entry, tuple) else entry) for entry in info.get(key, ()))
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            raise CheckpointError(f"{files.directory}: {what} tensors: {', '.join(names[:3])}{more}")
    return model


def _read_model(
    files: CheckpointFiles, config: PVCConfig, dtype: torch.dtype
) -> tuple[PVCForConditionalGeneration, dict[str, Any]]:
    """Load the model with transformers' loading info. Tensors are read singly, so that no weight is in memory twice."""
    options: dict[str, Any] = {
        "config": config,
        "dtype": dtype,
        "output_loading_info": True,
        "ignore_mismatched_sizes": True,  # the caller rejects sizes that the loading info reports
    }
    if files.config.get("quantization_config") is not None or is_deepspeed_zero3_enabled():
        # Quantised weights need other files of the directory, and ZeRO-3 needs real tensors.
        return PVCForConditionalGeneration.from_pretrained(
            files.directory, use_safetensors=True, local_files_only=True, **options
        )
    model, info = PVCForConditionalGeneration.from_pretrained(None, state_dict=stored_tensors(files), **options)
    model.name_or_path = model.config.name_or_path = str(files.directory)
    if (files.directory / GENERATION_CONFIG_NAME).exists():
        model.generation_config = GenerationConfig.from_pretrained(files.directory, local_files_only=True)
    return model, info


def check_fit(config: PVCConfig, processor: PVCProcessor) -> None:
    """Check that the results of a processor fit the inputs of a model.

    Args:
        config: configuration of the model.
        processor: the processor.

    Raises:
        CheckpointError: sizes, placeholders or vocabulary differ; the message names both values.
    """
    side = config.vision_config.image_size[0]
    sizes = [
        tuple(dict(part.size).get(edge) for edge in ("height", "width"))
        for part in (processor.image_processor, processor.video_processor)
    ]
    pairs: list[tuple[str, Any, Any]] = [
        ("tokens per frame", processor.tokens_per_frame, config.tokens_per_frame),
        ("picture size", sizes[0], (side, side)),
        ("video frame size", sizes[1], (side, side)),
        ("image placeholder id", processor.image_token_id, config.image_token_id),
        ("video placeholder id", processor.video_token_id, config.video_token_id),
    ]
    for what, value, expected in pairs:
        if value != expected:
            raise CheckpointError(f"the processor's {what} is {value}, but the model's is {expected}")
    if len(processor.tokenizer) > config.text_config.vocab_size:
        raise CheckpointError(
            f"the tokenizer has {len(processor.tokenizer)} tokens, but the model {config.text_config.vocab_size}"
        )


def check_template(processor: PVCProcessor, videos: bool = False) -> None:
    """Check that the chat template can render a question with a picture.

    Args:
        processor: the processor with the template.
        videos: also check a question with a video.

    Raises:
        CheckpointError: the template is missing or fails.
    """
    parts = [
        {"type": "image", "image": ""},
        *([{"type": "video", "video": ""}] * videos),
        {"type": "text", "text": "x"},
    ]
    media = {"image_grid_thw": [[1, 1, 1]], "image_steps": [1], "timestamps": [[0.0]] * videos}
    try:
        processor.encode_chat([{"role": "user", "content": parts}], media)
    except Exception as error:  # Jinja, its sandbox and the templates raise exceptions of many types
        raise CheckpointError(f"the chat template does not work: {_to_one_line(error)}") from error


def _to_one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


__all__ = ["check_fit", "check_template", "load_checkpoint", "load_config", "load_processor"]
