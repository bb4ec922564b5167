"""Checks of the keys of a configuration that are not its fields.

Keys that transformers and other tools write are accepted, and a misspelt field is rejected. Called by the
configurations (`config.py`), and by recipes and conversion, which accept fields only.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from transformers import GenerationConfig
from transformers.configuration_utils import PreTrainedConfig

from pvc.errors import ConfigError

# A key that differs from a field by at most this number of edits counts as a misspelling.
MAX_EDITS = 2

# Keys that transformers passes to a config and that are not fields.
_FRAMEWORK_KEYS = frozenset({"attn_implementation", "experts_implementation", "output_attentions", "name_or_path"})
_FRAMEWORK_KEYS |= frozenset({"auto_map", "torch_dtype", "dtype", "transformers_version", "model_type", "use_cache"})
# Keys that older checkpoints of language models contain and that are not fields in the installed transformers.
_LEGACY_KEYS = frozenset(
    {"rope_theta", "rope_scaling", "rope_parameters", "use_bfloat16", "rotary_emb_base", "attn_implementation"}
)
# Fields of other models that are within two edits of a common field and have another meaning.
_OTHER_MODELS_KEYS = frozenset({f"{name}_token_id" for name in ("boa", "boi", "cls", "eoa", "eod", "eoi", "sep")})
_OTHER_MODELS_KEYS |= {"emb_pdrop", "layer_type", "v_head_dim"}


def unknown_keys(config_class: type[PreTrainedConfig], keys: Iterable[str]) -> list[str]:
    """List the keys that are neither a field of a configuration nor known to transformers.

    Args:
        config_class: class of the configuration.
        keys: keys of a configuration's dictionary. Those that start with `_` are private and count as known.

    Returns:
        The unknown keys, in their order.
    """
    known = {field.name for field in dataclasses.fields(config_class)} | set(config_class.attribute_map)
    known |= set(GenerationConfig().to_dict()) | _FRAMEWORK_KEYS | _LEGACY_KEYS
    return [key for key in keys if key not in known and not key.startswith("_")]


def check_keys(kind: str, config_class: type[PreTrainedConfig], keys: Iterable[str]) -> None:
    """Reject keys that are a misspelt field, which would have no effect, or that would hide a method.

    Args:
        kind: name of the configuration in the error message, for example "vision_config".
        config_class: class of the configuration.
        keys: keys of a configuration's dictionary.

    Raises:
        ConfigError: a key is within two edits of a field, or is the name of a method or of a computed value.
    """
    inherited = {field.name for field in dataclasses.fields(PreTrainedConfig)}
    fields = [field.name for field in dataclasses.fields(config_class) if field.name not in inherited]
    for key in unknown_keys(config_class, keys):
        attribute = getattr(config_class, key, None)
        if callable(attribute) or (isinstance(attribute, property) and attribute.fset is None):
            raise ConfigError(f"unknown key in {kind}: {key} is computed and cannot be set; remove it")
        similar = [name for name in fields if is_within(key, name, MAX_EDITS)]
        if similar and key not in _OTHER_MODELS_KEYS:
            similar.sort(key=lambda name: not is_within(key, name, 1))
            raise ConfigError(f"unknown key in {kind}: {key}; did you mean {similar[0]}? Correct or remove it")


def is_within(first: str, second: str, edits: int) -> bool:
    """Compare the optimal string alignment distance of two texts with a bound.

    An edit is an insertion, a deletion, a substitution or a swap of neighbours.

    Args:
        first: a text.
        second: another text.
        edits: the maximum distance.

    Returns:
        True if at most `edits` edits turn one text into the other.
    """
    if edits < 0:
        return False
    while first and second and first[0] == second[0]:
        first, second = first[1:], second[1:]
    if not first or not second:
        return len(first) + len(second) <= edits
    is_swapped = first[:2] == second[1::-1]
    return (
        is_within(first[1:], second, edits - 1)
        or is_within(first, second[1:], edits - 1)
        or is_within(first[1:], second[1:], edits - 1)
        or (is_swapped and is_within(first[2:], second[2:], edits - 1))
    )


__all__ = ["check_keys", "is_within", "unknown_keys"]
