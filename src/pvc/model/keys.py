"""Keys of a configuration besides its fields: what transformers and other tools write is kept, a misspelt field is not.

Called by the configurations (`config.py`), and by recipes and conversion, which accept fields only.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from transformers import GenerationConfig
from transformers.configuration_utils import PreTrainedConfig

from pvc.errors import ConfigError

MISSPELT_EDITS = 2

# Keys that transformers itself hands to a config besides its fields.
_FRAMEWORK_KEYS = frozenset({"attn_implementation", "experts_implementation", "output_attentions", "name_or_path"})
_FRAMEWORK_KEYS |= frozenset({"auto_map", "torch_dtype", "dtype", "transformers_version", "model_type", "use_cache"})
# Keys of language models' configurations that are no fields (any more), but that checkpoints of the field still carry.
_LEGACY_KEYS = frozenset(
    {"rope_theta", "rope_scaling", "rope_parameters", "use_bfloat16", "rotary_emb_base", "attn_implementation"}
)
# Fields of other models that lie within two edits of a field of many language models, and mean something else.
_OTHER_MODELS_KEYS = frozenset({f"{name}_token_id" for name in ("boa", "boi", "cls", "eoa", "eod", "eoi", "sep")})
_OTHER_MODELS_KEYS |= {"emb_pdrop", "layer_type", "v_head_dim"}


def unknown_keys(config_class: type[PreTrainedConfig], given: Iterable[str]) -> list[str]:
    """List the keys that are neither a field of `config_class` nor known to transformers.

    Args:
        config_class: the class of the configuration that the keys are meant for.
        given: keys of a configuration's dictionary; those that start with `_` are private and count as known.
    """
    known = {field.name for field in dataclasses.fields(config_class)} | set(config_class.attribute_map)
    known |= set(GenerationConfig().to_dict()) | _FRAMEWORK_KEYS | _LEGACY_KEYS
    return [key for key in given if key not in known and not key.startswith("_")]


def check_keys(kind: str, config_class: type[PreTrainedConfig], given: Iterable[str]) -> None:
    """Refuse keys that would be kept without effect although a field is meant, or that would hide a method.

    Args:
        kind: what the message calls the configuration, e.g. "vision_config".
        config_class: the class of the configuration that the keys are meant for.
        given: keys of a configuration's dictionary.

    Raises:
        ConfigError: a key within two edits of a field, or the name of a method or of a computed value.
    """
    inherited = {field.name for field in dataclasses.fields(PreTrainedConfig)}
    fields = [field.name for field in dataclasses.fields(config_class) if field.name not in inherited]
    for key in unknown_keys(config_class, given):
        attribute = getattr(config_class, key, None)
        if callable(attribute) or (isinstance(attribute, property) and attribute.fset is None):
            raise ConfigError(f"unknown key in {kind}: {key} is computed and cannot be set; remove it")
        meant = [] if key in _OTHER_MODELS_KEYS else [name for name in fields if is_within(key, name, MISSPELT_EDITS)]
        if meant:
            meant.sort(key=lambda name: not is_within(key, name, 1))
            raise ConfigError(f"unknown key in {kind}: {key}; did you mean {meant[0]}? Correct or remove it")


def is_within(first: str, second: str, edits: int) -> bool:
    """Whether `edits` insertions, deletions, substitutions and swaps of neighbours make one text the other.

    This is the optimal string alignment distance, compared with a bound.
    """
    if edits < 0:
        return False
    while first and second and first[0] == second[0]:
        first, second = first[1:], second[1:]
    if not first or not second:
        return len(first) + len(second) <= edits
    swapped = first[:2] == second[1::-1]
    return (
        is_within(first[1:], second, edits - 1)
        or is_within(first, second[1:], edits - 1)
        or is_within(first[1:], second[1:], edits - 1)
        or (swapped and is_within(first[2:], second[2:], edits - 1))
    )


__all__ = ["check_keys", "is_within", "unknown_keys"]
