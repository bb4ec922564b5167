"""What a directory to be converted holds: its kind, its configuration in PVC's terms, its key map, its tensors.

Reads JSON and safetensors headers; refuses what cannot become a PVC model, with the key or file named. Leaves out the
tokenizer (`tokenizer.py`) and the tensors themselves (`from_internvl.py`).
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

# Templates of the original format that are ChatML, and what follows the end of a turn.
CHATML = {"internvl2_5": "\n", "Hermes-2": "", "internlm2-chat": ""}
# How transformers' processors prepare pixels, as ours do. InternVL's processor turns crop_to_patches on whatever
# the file says, so that it is not listed.
_PREPARED: dict[str, Any] = {
    **dict.fromkeys(("do_resize", "do_rescale", "do_normalize"), True),
    "resample": 3,
    "rescale_factor": 1 / 255,
}
KINDS = ("internvl", "internvl_chat", "pvc_internvl")
IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}

# Keys of language models' configurations that say nothing about the network.
_NOT_SHAPE = frozenset(
    {"_name_or_path", "architectures", "auto_map", "torch_dtype", "dtype", "transformers_version", "return_dict"}
    | {"attn_implementation", "_attn_implementation", "tie_word_embeddings", "use_bfloat16", "model_type", "id2label"}
    | {"label2id", "problem_type", "use_cache", "output_hidden_states", "output_attentions", "is_encoder_decoder"}
    | {"chunk_size_feed_forward", "is_decoder", "add_cross_attention", "cross_attention_hidden_size", "torchscript"}
    | {"tie_encoder_decoder", "pruned_heads", "finetuning_task", "prefix", "task_specific_params", "tokenizer_class"}
    | {"tf_legacy_loss", "_attn_implementation_autoset", "sep_token_id", "decoder_start_token_id", "moe_config"}
)
# Keys of whole models' configurations that are read here or by transformers, and those of training.
_WHOLE = {
    "internvl": frozenset({"vision_config", "text_config", "image_token_id", "image_seq_length", "downsample_ratio"})
    | {"projector_hidden_act", "vision_feature_layer", "vision_feature_select_strategy", "video_token_id"},
    "internvl_chat": frozenset({"vision_config", "llm_config", "downsample_ratio", "select_layer", "ps_version"})
    | {"force_image_size", "template", "dynamic_image_size", "use_thumbnail", "pad2square", "min_dynamic_patch"}
    | {"max_dynamic_patch", "use_backbone_lora", "use_llm_lora", "hidden_size", "vocab_size"},
}
# Keys of vision towers' configurations that change nothing in what a trained tower computes; official files have them.
_VISION_IDLE = frozenset({"dropout", "initializer_factor", "drop_path_rate", "use_flash_attn"})
_VISION_SAME = frozenset(
    {"hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "hidden_act", "layer_norm_eps"}
    | {"image_size", "patch_size", "num_channels", "norm_type", "initializer_range"}
)


@dataclass(frozen=True)
class Source:
    """A checkpoint as it lies there.

    Attributes:
        kind: "internvl", "internvl_chat" or "pvc_internvl". language: the type of its language model.
        vision, text: configurations, as `PVCConfig` takes them.
        tied: whether the output layer is the input embedding by the source's own word; None: it says nothing.
        ratio: downsample ratio. pictures: settings of the image processor. activation: the projector's.
        unknown: keys of the language model's configuration that were passed over. separator: what follows a turn.
        template: name of the conversation template, in the original format. warnings: settings that are not followed.
        fused_heads: (query heads, key heads) where the language model's projections are fused.
        tensors: all of them, by name; places: the shard of each.
    """

    directory: Path
    kind: str
    language: str
    vision: dict[str, Any]
    text: dict[str, Any]
    tied: bool | None
    ratio: float
    pictures: dict[str, Any]
    activation: str
    unknown: tuple[str, ...]
    rules: tuple[Rule, ...]
    fused_heads: tuple[int, int] = (1, 1)
    separator: str = "\n"
    template: str | None = None
    warnings: tuple[str, ...] = ()
    tensors: dict[str, Tensor] = field(default_factory=dict, repr=False)
    places: dict[str, Path] = field(default_factory=dict, repr=False)

    @property
    def largest_shard(self) -> int:
        """Bytes."""
        return max(path.stat().st_size for path in set(self.places.values()))


def read_source(directory: Path, more_rules: Sequence[Rule] = ()) -> Source:
    """A directory's description; `more_rules` come before its own.

    Raises:
        CheckpointError: no such directory, no weights, or not a model that can be converted.
    """
    if not directory.is_dir():
        raise CheckpointError(f"no model directory at {directory}")
    config = read_json(directory / "config.json")
    kind = config.get("model_type")
    if kind not in KINDS:
        raise CheckpointError(f"{directory} holds a model of type {kind!r}; {', '.join(KINDS)} can be converted")
    try:
        fields = _transformers(config) if kind == "internvl" else _chat(config)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        if isinstance(error, PVCError):
            raise
        raise CheckpointError(f"{directory}/config.json lacks or garbles {error}") from error
    if fields["ratio"] not in DOWNSAMPLE_RATIOS:
        raise ConfigError(f"downsample_ratio is {fields['ratio']:g}; 1/2, 1/4 and 1/8 can be converted")
    if not isinstance(fields["text"].get("vocab_size"), int):
        raise ConfigError(f"{directory}/config.json does not say how large the vocabulary is (vocab_size)")
    rules = (*more_rules, *fields.pop("rules"))
    tensors, places = _tensors(directory)
    pictures = {**fields.pop("pictures"), **_preprocessing(directory)}
    if kind == "internvl":
        warnings = _not_followed(directory, pictures, fields["vision"].get("image_size"))
    else:  # whose code takes pictures as config.json says, and does not read the files of image processors
        pictures |= _tiling(config)
        squeezed = "pad2square is true: pictures that are not tiled are padded, but frames of videos are squeezed"
        warnings = (squeezed,) * pictures.get("pad2square", False)
    fields |= {"pictures": pictures, "warnings": warnings + _passed_over(config, str(kind))}
    return Source(directory, str(kind), rules=rules, tensors=tensors, places=places, **fields)


def _transformers(config: dict[str, Any]) -> dict[str, Any]:
    for name, wanted in (("vision_feature_layer", -1), ("vision_feature_select_strategy", "default")):
        if config.get(name, wanted) != wanted:
            raise ConfigError(f"{name} is {config[name]!r}; only {wanted!r} can be converted")
    idle = _NOT_SHAPE | _VISION_IDLE
    vision = {key: value for key, value in config["vision_config"].items() if key not in idle}
    if surprising := unknown_keys(PVCVisionConfig, vision):  # it may change what the tower computes
        raise ConfigError(f"unknown key in vision_config: {', '.join(surprising)}; the tower may depend on it")
    text, unknown = _text(config["text_config"])
    tied = config.get("tie_word_embeddings", config["text_config"].get("tie_word_embeddings"))
    return {
        "language": text["model_type"],
        "vision": vision,
        "text": text,
        "unknown": unknown,
        "tied": tied,
        "ratio": float(config.get("downsample_ratio", 0.5)),
        "pictures": {},
        "activation": config.get("projector_hidden_act", "gelu"),
        "rules": TRANSFORMERS,
    }


def _chat(config: dict[str, Any]) -> dict[str, Any]:
    """The original format: a tower with fused projections, `mlp1`, and the language model's own configuration."""
    for name, wanted in (("select_layer", -1), ("ps_version", "v2")):
        if config.get(name, wanted) != wanted:
            raise ConfigError(f"{name} is {config[name]!r}; only {wanted!r} can be converted")
    given, language = config["vision_config"], config["llm_config"]
    vision = {key: given[key] for key in _VISION_SAME if key in given}
    vision |= {
        "image_size": config.get("force_image_size") or given["image_size"],
        "attention_bias": given.get("qkv_bias", True),
        "use_qk_norm": given.get("qk_normalization", False),
        "use_mean_pooling": True,  # what transformers calls it that no norm follows the last layer
        "layer_scale_init_value": given.get("initializer_factor", 0.1),
    }
    if vision["image_size"] != given["image_size"]:
        raise ConfigError(
            f"force_image_size {vision['image_size']} is not the tower's image_size {given['image_size']}: its "
            "position embeddings would have to be resized, which is not supported"
        )
    kind = language.get("model_type") or _kind_of(language)
    fused = (1, 1)
    if kind == "internlm2":
        if language.get("bias"):
            raise ConfigError("llm_config.bias is true: InternLM2 with biases cannot be converted")
        heads = language["num_attention_heads"]
        fused = (heads, language.get("num_key_value_heads", heads))
        text, unknown = _text({**{k: v for k, v in language.items() if k != "bias"}, "model_type": "llama"})
    elif kind in ("qwen2", "qwen3", "llama"):
        text, unknown = _text({**language, "model_type": kind})
    else:
        raise ConfigError(f"llm_config.model_type is {kind!r}; qwen2, qwen3, llama and internlm2 can be converted")
    pictures = {"max_patches": config.get("max_dynamic_patch", 12), "min_patches": config.get("min_dynamic_patch", 1)}
    tied = language.get("tie_word_embeddings")
    return {
        "language": kind,
        "vision": vision,
        "text": text,
        "unknown": unknown,
        "tied": config.get("tie_word_embeddings", tied) if tied is None else tied,
        "ratio": float(config.get("downsample_ratio", 0.5)),
        "pictures": {**IMAGENET, **pictures},
        "activation": "gelu",
        "rules": CHAT_INTERNLM2 if kind == "internlm2" else CHAT,
        "fused_heads": fused,
        "separator": CHATML.get(str(config.get("template")), "\n"),
        "template": None if config.get("template") is None else str(config["template"]),
    }


def _kind_of(language: dict[str, Any]) -> str:
    """By the name of its architecture, which older files have in place of a type."""
    named = {"Qwen2ForCausalLM": "qwen2", "Qwen3ForCausalLM": "qwen3", "LlamaForCausalLM": "llama"}
    named["InternLM2ForCausalLM"] = "internlm2"
    return named.get(next(iter(language.get("architectures") or [""])), "unknown")


def _text(config: dict[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """A language model's configuration without what is not about the network, and keys that were passed over.

    Training frameworks leave keys of their own behind. One that matters and is misspelt cannot hide among them: every
    tensor's name and shape is compared with what the rest asks for.
    """
    kind = config.get("model_type", "qwen2")
    known = _NOT_SHAPE | set(GenerationConfig().to_dict()) - {"bos_token_id", "eos_token_id", "pad_token_id"}
    kept = {key: value for key, value in config.items() if key not in known and value is not None}
    try:
        made = AutoConfig.for_model(kind, **kept)
    except Exception as error:  # whatever a hostile or clumsy file provokes in the library is the file's fault
        told = " ".join(str(error).split())[:300]
        raise ConfigError(f"the language model's configuration ({kind}): {told}") from error
    unknown = unknown_keys(type(made), kept)
    return {"model_type": kind, **{key: kept[key] for key in kept if key not in unknown}}, tuple(unknown)


def _tensors(directory: Path) -> tuple[dict[str, Tensor], dict[str, Path]]:
    """Every tensor by its name, and the shard that holds it."""
    tensors: dict[str, Tensor] = {}
    places: dict[str, Path] = {}
    for path in find_shards(directory):
        for tensor in read_header(path)[0]:
            if tensor.name in tensors:
                raise CheckpointError(f"{tensor.name} is in {places[tensor.name].name} and in {path.name}")
            tensors[tensor.name], places[tensor.name] = tensor, path
    return tensors, places


def _preprocessing(directory: Path) -> dict[str, Any]:
    """What a file of the image processor says of pictures."""
    settings: dict[str, Any] = {}
    for name in ("preprocessor_config.json", "processor_config.json"):
        path = directory / name
        if path.exists():
            data = read_json(path)
            found = data.get("image_processor", data)
            keys = ("image_mean", "image_std", "max_patches", "min_patches")
            settings |= {key: found[key] for key in keys if isinstance(found, dict) and found.get(key) is not None}
            _check_preprocessing(settings, path)
    return settings


def _passed_over(config: dict[str, Any], kind: str) -> tuple[str, ...]:
    """Name keys of the whole model's configuration that nothing here reads."""
    idle = _NOT_SHAPE | set(GenerationConfig().to_dict()) | set(PretrainedConfig().to_dict())
    known = idle | _WHOLE.get(kind, _WHOLE["internvl_chat"]) | {"system_message"}
    names = [name[:40] for name, value in config.items() if name not in known and value is not None]
    more = f" and {len(names) - 20} more" if len(names) > 20 else ""
    warnings = [f"passed over in config.json: {', '.join(names[:20])}{more}"] if names else []
    if config.get("system_message"):
        warnings.append("config.json has a system_message: pass it as the first message of a conversation")
    return tuple(warnings)


def _tiling(config: dict[str, Any]) -> dict[str, Any]:
    """Return how the original format's configuration has pictures tiled, in the words of our image processor."""
    for name in ("dynamic_image_size", "use_thumbnail", "pad2square"):
        if type(config.get(name, False)) is not bool:
            raise ConfigError(f"{name} must be true or false, not {config[name]!r}")
    tiling: dict[str, Any] = {name: config[name] for name in ("use_thumbnail", "pad2square") if name in config}
    return tiling if config.get("dynamic_image_size", True) else {**tiling, "max_patches": 1}


def _not_followed(directory: Path, pictures: dict[str, Any], side: Any) -> tuple[str, ...]:
    """Name settings of transformers' image and video processors that ours do otherwise.

    Args:
        directory: the source.
        pictures: mean and standard deviation that pictures and frames are normalised with.
        side: of the tower's pictures in pixels, one number or height and width.
    """
    sides = list(side) if isinstance(side, (list, tuple)) else [side, side]
    looks = {key: pictures.get(key, value) for key, value in IMAGENET.items()}
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
        wanted = {**_PREPARED, **looks}
        if isinstance(size := settings.get("size"), dict):
            wanted["size"] = {**size, "height": sides[0], "width": sides[1]}
        warnings += [
            f"{name}: {key} is {str(settings[key])[:60]}, but {str(value)[:60]} takes its place"
            for key, value in wanted.items()
            if settings.get(key) is not None and not _same(settings[key], value)
        ]
    return tuple(warnings)


def _same(given: Any, value: Any) -> bool:
    """Whether two settings are equal, numbers to float32's precision."""
    if isinstance(given, (int, float)) and isinstance(value, (int, float)):
        return math.isclose(given, value, rel_tol=1e-6)
    if isinstance(given, (list, tuple)) and isinstance(value, (list, tuple)):
        return len(given) == len(value) and all(map(_same, given, value))
    return bool(given == value)


def _check_preprocessing(settings: dict[str, Any], path: Path) -> None:
    for key in ("image_mean", "image_std"):
        values = settings.get(key, [0.5] * 3)
        numbers = isinstance(values, list) and all(type(value) in (int, float) for value in values)
        if not numbers or len(values) != 3 or (key == "image_std" and min(values) <= 0):
            raise ConfigError(f"{path}: {key} must be three numbers{' above 0' * (key == 'image_std')}, not {values!r}")
    for key in ("max_patches", "min_patches"):
        if type(count := settings.get(key, 1)) is not int or count < 1:
            raise ConfigError(f"{path}: {key} must be a number from 1, not {count!r}")


__all__ = ["CHATML", "IMAGENET", "KINDS", "Source", "read_source"]
