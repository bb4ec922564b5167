"""Description of a checkpoint to convert: its kind, its configuration in PVC's terms, its key map, its tensors.

Reads JSON and safetensors headers, and rejects what cannot become a PVC model. The tokenizer is read by `tokenizer.py`,
the tensors by `from_internvl.py`. Called by `pvc convert` and `from_internvl.py`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transformers import AutoConfig, GenerationConfig, PretrainedConfig

from pvc.checkpoint.files import Tensor, find_shards, read_header, read_json
from pvc.convert.keymap import CHAT, CHAT_INTERNLM2, TRANSFORMERS, Rule
from pvc.errors import CheckpointError, ConfigError, PVCError
from pvc.model.config import DOWNSAMPLE_RATIOS, PVCVisionConfig
from pvc.model.keys import unknown_keys

# Templates of the original format that are ChatML, and the text after the end of a turn.
CHATML = {"internvl2_5": "\n", "Hermes-2": "", "internlm2-chat": ""}
# Settings that PVC's processors share with transformers'. crop_to_patches is missing: InternVL's processor turns it on
# regardless of the file.
_PREPARATION: dict[str, Any] = {
    **dict.fromkeys(("do_resize", "do_rescale", "do_normalize"), True),
    "resample": 3,
    "rescale_factor": 1 / 255,
}
KINDS = ("internvl", "internvl_chat", "pvc_internvl")
IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}

# Keys of language models' configurations that do not affect the network.
_IDLE_KEYS = frozenset(
    {"_name_or_path", "architectures", "auto_map", "torch_dtype", "dtype", "transformers_version", "return_dict"}
    | {"attn_implementation", "_attn_implementation", "tie_word_embeddings", "use_bfloat16", "model_type", "id2label"}
    | {"label2id", "problem_type", "use_cache", "output_hidden_states", "output_attentions", "is_encoder_decoder"}
    | {"chunk_size_feed_forward", "is_decoder", "add_cross_attention", "cross_attention_hidden_size", "torchscript"}
    | {"tie_encoder_decoder", "pruned_heads", "finetuning_task", "prefix", "task_specific_params", "tokenizer_class"}
    | {"tf_legacy_loss", "_attn_implementation_autoset", "sep_token_id", "decoder_start_token_id", "moe_config"}
)
# Keys of whole models' configurations that are read here or by transformers, and those of training.
_MODEL_KEYS = {
    "internvl": frozenset({"vision_config", "text_config", "image_token_id", "image_seq_length", "downsample_ratio"})
    | {"projector_hidden_act", "vision_feature_layer", "vision_feature_select_strategy", "video_token_id"},
    "internvl_chat": frozenset({"vision_config", "llm_config", "downsample_ratio", "select_layer", "ps_version"})
    | {"force_image_size", "template", "dynamic_image_size", "use_thumbnail", "pad2square", "min_dynamic_patch"}
    | {"max_dynamic_patch", "use_backbone_lora", "use_llm_lora", "hidden_size", "vocab_size"},
}
# Keys of vision towers' configurations that do not affect what a trained tower computes; official files have them.
_IDLE_VISION_KEYS = frozenset({"dropout", "initializer_factor", "drop_path_rate", "use_flash_attn"})
_SHARED_VISION_KEYS = frozenset(
    {"hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "hidden_act", "layer_norm_eps"}
    | {"image_size", "patch_size", "num_channels", "norm_type", "initializer_range"}
)


@dataclass(frozen=True)
class Source:
    """A checkpoint to convert.

    Attributes:
        directory: of the checkpoint.
        kind: "internvl", "internvl_chat" or "pvc_internvl".
        language: type of the language model.
        vision: configuration of the tower, as `PVCConfig` takes it.
        text: configuration of the language model, as `PVCConfig` takes it.
        tied: whether the configuration ties the output layer to the input embedding; None: it does not say.
        ratio: downsample ratio.
        image_settings: settings of the image processor.
        activation: name of the projector's activation.
        unknown: keys of the language model's configuration that are ignored.
        rules: key map.
        fused_heads: numbers of query and key/value heads of a language model whose projections are fused.
        separator: text after the end of a turn.
        template: name of the conversation template, in the original format.
        warnings: settings that the converted model does not follow.
        tensors: all tensors by name.
        shard_paths: file of each tensor, by the tensor's name.
    """

    directory: Path
    kind: str
    language: str
    vision: dict[str, Any]
    text: dict[str, Any]
    tied: bool | None
    ratio: float
    image_settings: dict[str, Any]
    activation: str
    unknown: tuple[str, ...]
    rules: tuple[Rule, ...]
    fused_heads: tuple[int, int] = (1, 1)
    separator: str = "\n"
    template: str | None = None
    warnings: tuple[str, ...] = ()
    tensors: dict[str, Tensor] = field(default_factory=dict, repr=False)
    shard_paths: dict[str, Path] = field(default_factory=dict, repr=False)

    @property
    def largest_shard(self) -> int:
        """Size of the largest file with tensors, in bytes."""
        return max(path.stat().st_size for path in set(self.shard_paths.values()))


def read_source(directory: Path, more_rules: Sequence[Rule] = ()) -> Source:
    """Read the description of a checkpoint.

    Args:
        directory: of the checkpoint.
        more_rules: key map rules that are tried before those of the checkpoint's kind.

    Raises:
        CheckpointError: no such directory, no weights, or a model of another type.
        ConfigError: a configuration that cannot be converted.
    """
    if not directory.is_dir():
        raise CheckpointError(f"no model directory at {directory}")
    config = read_json(directory / "config.json")
    kind = config.get("model_type")
    if kind not in KINDS:
        raise CheckpointError(f"{directory} holds a model of type {kind!r}; {', '.join(KINDS)} can be converted")
    try:
        fields = _read_transformers_config(config) if kind == "internvl" else _read_chat_config(config)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        if isinstance(error, PVCError):
            raise
        raise CheckpointError(f"{directory}/config.json: missing or malformed value: {error}") from error
    if fields["ratio"] not in DOWNSAMPLE_RATIOS:
        raise ConfigError(f"downsample_ratio is {fields['ratio']:g}; 1/2, 1/4 and 1/8 can be converted")
    if not isinstance(fields["text"].get("vocab_size"), int):
        raise ConfigError(f"{directory}/config.json: the language model's vocab_size is missing or not an integer")
    rules = (*more_rules, *fields.pop("rules"))
    tensors, shard_paths = _read_tensors(directory)
    image_settings = {**fields.pop("image_settings"), **_read_preprocessing(directory)}
    if kind == "internvl":
        warnings = _list_ignored_settings(directory, image_settings, fields["vision"].get("image_size"))
    else:  # the original code follows config.json and does not read the image processor's files
        image_settings |= _read_tiling(config)
        squeezed = "pad2square is true: pictures that are not tiled are padded, but frames of videos are squeezed"
        warnings = (squeezed,) * image_settings.get("pad2square", False)
    fields |= {"image_settings": image_settings, "warnings": warnings + _list_unread_keys(config, str(kind))}
    return Source(directory, str(kind), rules=rules, tensors=tensors, shard_paths=shard_paths, **fields)


def _read_transformers_config(config: dict[str, Any]) -> dict[str, Any]:
    """Read transformers' format into fields of `Source`."""
    for name, expected in (("vision_feature_layer", -1), ("vision_feature_select_strategy", "default")):
        if config.get(name, expected) != expected:
            raise ConfigError(f"{name} is {config[name]!r}; only {expected!r} can be converted")
    idle = _IDLE_KEYS | _IDLE_VISION_KEYS
    vision = {key: value for key, value in config["vision_config"].items() if key not in idle}
    if unsupported := unknown_keys(PVCVisionConfig, vision):  # it may change what the tower computes
        raise ConfigError(f"unknown key in vision_config: {', '.join(unsupported)}; the tower may depend on it")
    text, unknown = _clean_text_config(config["text_config"])
    tied = config.get("tie_word_embeddings", config["text_config"].get("tie_word_embeddings"))
    return {
        "language": text["model_type"],
        "vision": vision,
        "text": text,
        "unknown": unknown,
        "tied": tied,
        "ratio": float(config.get("downsample_ratio", 0.5)),
        "image_settings": {},
        "activation": config.get("projector_hidden_act", "gelu"),
        "rules": TRANSFORMERS,
    }


def _read_chat_config(config: dict[str, Any]) -> dict[str, Any]:
    """Read the original format into fields of `Source`: fused projections in the tower, `mlp1`, and `llm_config`."""
    for name, expected in (("select_layer", -1), ("ps_version", "v2")):
        if config.get(name, expected) != expected:
            raise ConfigError(f"{name} is {config[name]!r}; only {expected!r} can be converted")
    tower, language = config["vision_config"], config["llm_config"]
    vision = {key: tower[key] for key in _SHARED_VISION_KEYS if key in tower}
    vision |= {
        "image_size": config.get("force_image_size") or tower["image_size"],
        "attention_bias": tower.get("qkv_bias", True),
        "use_qk_norm": tower.get("qk_normalization", False),
        "use_mean_pooling": True,  # in transformers: no norm follows the last layer
        "layer_scale_init_value": tower.get("initializer_factor", 0.1),
    }
    if vision["image_size"] != tower["image_size"]:
        raise ConfigError(
            f"force_image_size {vision['image_size']} is not the tower's image_size {tower['image_size']}: its "
            "position embeddings would have to be resized, which is not supported"
        )
    kind = language.get("model_type") or _guess_language_type(language)
    fused = (1, 1)
    if kind == "internlm2":
        if language.get("bias"):
            raise ConfigError("llm_config.bias is true: InternLM2 with biases cannot be converted")
        heads = language["num_attention_heads"]
        fused = (heads, language.get("num_key_value_heads", heads))
        text, unknown = _clean_text_config(
            {**{k: v for k, v in language.items() if k != "bias"}, "model_type": "llama"}
        )
    elif kind in ("qwen2", "qwen3", "llama"):
        text, unknown = _clean_text_config({**language, "model_type": kind})
    else:
        raise ConfigError(f"llm_config.model_type is {kind!r}; qwen2, qwen3, llama and internlm2 can be converted")
    image_settings = {
        "max_patches": config.get("max_dynamic_patch", 12),
        "min_patches": config.get("min_dynamic_patch", 1),
    }
    tied = language.get("tie_word_embeddings")
    return {
        "language": kind,
        "vision": vision,
        "text": text,
        "unknown": unknown,
        "tied": config.get("tie_word_embeddings", tied) if tied is None else tied,
        "ratio": float(config.get("downsample_ratio", 0.5)),
        "image_settings": {**IMAGENET, **image_settings},
        "activation": "gelu",
        "rules": CHAT_INTERNLM2 if kind == "internlm2" else CHAT,
        "fused_heads": fused,
        "separator": CHATML.get(str(config.get("template")), "\n"),
        "template": None if config.get("template") is None else str(config["template"]),
    }


def _guess_language_type(language: dict[str, Any]) -> str:
    """Return a language model's type from its architecture, which older files have in place of a type."""
    types = {"Qwen2ForCausalLM": "qwen2", "Qwen3ForCausalLM": "qwen3", "LlamaForCausalLM": "llama"}
    types["InternLM2ForCausalLM"] = "internlm2"
    return types.get(next(iter(language.get("architectures") or [""])), "unknown")


def _clean_text_config(config: dict[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return the keys of a language model's configuration that affect the network, and the names of unknown keys.

    Training frameworks add keys. A misspelt key that matters cannot go unnoticed among them: every tensor's name and
    shape is compared with what the known keys require.
    """
    kind = config.get("model_type", "qwen2")
    known = _IDLE_KEYS | set(GenerationConfig().to_dict()) - {"bos_token_id", "eos_token_id", "pad_token_id"}
    fields = {key: value for key, value in config.items() if key not in known and value is not None}
    try:
        parsed = AutoConfig.for_model(kind, **fields)
    except Exception as error:  # a malformed file can raise any exception in the library
        message = " ".join(str(error).split())[:300]
        raise ConfigError(f"the language model's configuration ({kind}): {message}") from error
    unknown = unknown_keys(type(parsed), fields)
    return {"model_type": kind, **{key: fields[key] for key in fields if key not in unknown}}, tuple(unknown)


def _read_tensors(directory: Path) -> tuple[dict[str, Tensor], dict[str, Path]]:
    """Read the headers of all shards; return every tensor and its shard, by name."""
    tensors: dict[str, Tensor] = {}
    shard_paths: dict[str, Path] = {}
    for path in find_shards(directory):
        for tensor in read_header(path)[0]:
            if tensor.name in tensors:
                raise CheckpointError(f"{tensor.name} is in {shard_paths[tensor.name].name} and in {path.name}")
            tensors[tensor.name], shard_paths[tensor.name] = tensor, path
    return tensors, shard_paths


def _read_preprocessing(directory: Path) -> dict[str, Any]:
    """Read normalisation and tiling from the files of the image processor."""
    settings: dict[str, Any] = {}
    for name in ("preprocessor_config.json", "processor_config.json"):
        path = directory / name
        if path.exists():
            data = read_json(path)
            values = data.get("image_processor", data)
            keys = ("image_mean", "image_std", "max_patches", "min_patches")
            settings |= {key: values[key] for key in keys if isinstance(values, dict) and values.get(key) is not None}
            _check_preprocessing(settings, path)
    return settings


def _list_unread_keys(config: dict[str, Any], kind: str) -> tuple[str, ...]:
    """Return warnings about keys of the model's configuration that conversion does not read."""
    idle = _IDLE_KEYS | set(GenerationConfig().to_dict()) | set(PretrainedConfig().to_dict())
    known = idle | _MODEL_KEYS.get(kind, _MODEL_KEYS["internvl_chat"]) | {"system_message"}
    names = [name[:40] for name, value in config.items() if name not in known and value is not None]
    more = f" and {len(names) - 20} more" if len(names) > 20 else ""
    warnings = [f"ignored in config.json: {', '.join(names[:20])}{more}"] if names else []
    if config.get("system_message"):
        warnings.append("config.json has a system_message: pass it as the first message of a conversation")
    return tuple(warnings)


def _read_tiling(config: dict[str, Any]) -> dict[str, Any]:
    """Return the tiling settings of the original format under the names of PVC's image processor."""
    for name in ("dynamic_image_size", "use_thumbnail", "pad2square"):
        if type(config.get(name, False)) is not bool:
            raise ConfigError(f"{name} must be true or false, not {config[name]!r}")
    tiling: dict[str, Any] = {name: config[name] for name in ("use_thumbnail", "pad2square") if name in config}
    return tiling if config.get("dynamic_image_size", True) else {**tiling, "max_patches": 1}


def _list_ignored_settings(directory: Path, image_settings: dict[str, Any], side: Any) -> tuple[str, ...]:
    """Return warnings about settings of transformers' image and video processors that PVC's do not follow.

    Args:
        directory: of the source.
        image_settings: mean and standard deviation of the normalisation of images and frames.
        side: image size of the tower in pixels, one number or height and width.
    """
    sides = list(side) if isinstance(side, (list, tuple)) else [side, side]
    normalization = {key: image_settings.get(key, value) for key, value in IMAGENET.items()}
    warnings = []
    for name, part in (
        ("preprocessor_config.json", None),
        ("processor_config.json", "image_processor"),
        ("video_preprocessor_config.json", None),
        ("processor_config.json", "video_processor"),
    ):
        data = read_json(directory / name) if (directory / name).exists() else {}
        settings = data if part is None else data.get(part)
        if not isinstance(settings, dict):
            continue
        followed = {**_PREPARATION, **normalization}
        if isinstance(size := settings.get("size"), dict):
            followed["size"] = {**size, "height": sides[0], "width": sides[1]}
        warnings += [
            f"{name}: {key} is {str(settings[key])[:60]}, but {str(value)[:60]} takes its place"
            for key, value in followed.items()
            if settings.get(key) is not None and not _is_equal(settings[key], value)
        ]
    return tuple(warnings)


def _is_equal(first: Any, second: Any) -> bool:
    """Return whether two settings are equal, numbers to float32's precision."""
    if isinstance(first, (int, float)) and isinstance(second, (int, float)):
        return math.isclose(first, second, rel_tol=1e-6)
    if isinstance(first, (list, tuple)) and isinstance(second, (list, tuple)):
        return len(first) == len(second) and all(map(_is_equal, first, second))
    return bool(first == second)


def _check_preprocessing(settings: dict[str, Any], path: Path) -> None:
    """Raise ConfigError for malformed normalisation or tiling settings."""
    for key in ("image_mean", "image_std"):
        values = settings.get(key, [0.5] * 3)
        numbers = isinstance(values, list) and all(type(value) in (int, float) for value in values)
        if not numbers or len(values) != 3 or (key == "image_std" and min(values) <= 0):
            raise ConfigError(f"{path}: {key} must be three numbers{' above 0' * (key == 'image_std')}, not {values!r}")
    for key in ("max_patches", "min_patches"):
        if type(count := settings.get(key, 1)) is not int or count < 1:
            raise ConfigError(f"{path}: {key} must be a number from 1, not {count!r}")


__all__ = ["CHATML", "IMAGENET", "KINDS", "Source", "read_source"]
