"""Sort the keyword arguments of a processor by the part that takes them, and check their values.

Every name that transformers' base class, its tokenizers, image or video processors or the chat template know is
accepted. Unknown names and values that are not supported raise an error with the name. Called by PVCProcessor.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from typing import Any

from transformers.processing_utils import AudioKwargs, TextKwargs, VideosKwargs

from pvc.errors import UsageError
from pvc.processing.image import PVCImageProcessorKwargs
from pvc.processing.video import PVCVideosKwargs

PARTS: dict[str, frozenset[str]] = {
    # sanitize_control_tokens: chat texts never become control tokens here, whatever its value.
    "text_kwargs": frozenset(TextKwargs.__annotations__) | {"return_mm_token_type_ids", "sanitize_control_tokens"},
    "images_kwargs": frozenset(PVCImageProcessorKwargs.__annotations__),
    "videos_kwargs": frozenset({**VideosKwargs.__annotations__, **PVCVideosKwargs.__annotations__}),
}
AUDIO = frozenset(AudioKwargs.__annotations__).difference(*PARTS.values())

# Text options that do nothing for chats with these values, and are not supported with others.
_TEXT_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "stride": (None, 0),
    "text_pair": (None,),
    "text_target": (None,),
    "text_pair_target": (None,),
    **dict.fromkeys(("is_split_into_words", "return_overflowing_tokens", "return_offsets_mapping"), (None, False)),
    **dict.fromkeys(("return_special_tokens_mask", "return_text_replacement_offsets"), (None, False)),
}
# Variables of many chat templates and of transformers; if a template lacks one, only these values are accepted.
_TEMPLATE_NEUTRAL: dict[str, tuple[Any, ...]] = {
    **dict.fromkeys(("tools", "documents"), (None, [], ())),
    **dict.fromkeys(("enable_thinking", "thinking", "preserve_thinking", "load_audio_from_video"), (None, False)),
    "reasoning_effort": (None, "none"),
    "tokenizer_kwargs": (None, {}),
    "template_kwargs": (None, {}),
    "split_special_tokens": (None, False),
    "audio": (None, [], ()),
}
_CHAT_ONLY = ("continue_final_message", "add_generation_prompt", "return_assistant_tokens_mask", "return_dict")


def sort_options(
    options: Mapping[str, Any], processor_kwargs: Mapping[str, Any] | None = None, variables: Collection[str] = ()
) -> dict[str, dict[str, Any]]:
    """Sort keyword arguments into `text_kwargs`, `images_kwargs`, `videos_kwargs` and `template`.

    Args:
        options: keyword arguments, flat or under the names of the parts (`text_kwargs`, ..., `common_kwargs`).
        processor_kwargs: the same, as in transformers' `apply_chat_template`, but never for the template.
        variables: names that the chat template reads.

    Returns:
        One dictionary per part. Values of None are left out, except for `return_tensors`, where None has a meaning.

    Raises:
        UsageError: an unknown name, one that is passed twice, or a value that is not supported.
    """
    parts: dict[str, dict[str, Any]] = {name: {} for name in (*PARTS, "template")}
    common: dict[str, Any] = {}
    for arguments, can_be_variable in ((options, True), (processor_kwargs or {}, False)):
        for name, value in arguments.items():
            if can_be_variable and name in variables:
                parts["template"][name] = value
            elif name in PARTS or name in ("audio_kwargs", "common_kwargs"):
                if not isinstance(value, Mapping | None):
                    raise UsageError(f"{name} must be a dictionary, not {str(value)[:80]!r}")
                for inner, setting in (value or {}).items():
                    if name == "common_kwargs":
                        common[inner] = setting
                    elif name == "audio_kwargs":
                        _check_audio(inner, setting)
                    else:
                        _add_option(parts, (name,), inner, setting, variables)
            else:
                target_parts = [part for part, names in PARTS.items() if name in names]
                _add_option(parts, target_parts, name, value, variables)
    for inner, setting in common.items():
        for part, names in PARTS.items():
            if inner in names and parts[part].get(inner) is None:
                parts[part][inner] = setting
    return parts


def _add_option(
    parts: dict[str, dict[str, Any]], target_parts: Collection[str], name: str, value: Any, variables: Any
) -> None:
    """Add one option to the parts that take it."""
    for part in target_parts:
        if name not in PARTS[part]:
            raise _unknown_option_error(name, variables, f" in {part}")
        if value is None and name != "return_tensors":
            continue
        if name in parts[part] and not _is_equal(parts[part][name], value):
            raise UsageError(f"{name} is passed twice: {parts[part][name]!r} and {value!r}")
        parts[part][name] = value
    if target_parts:
        return
    if name in _TEMPLATE_NEUTRAL:
        if not any(_is_equal(value, neutral) for neutral in _TEMPLATE_NEUTRAL[name]):
            raise UsageError(f"{name} is {str(value)[:80]!r}, but neither the chat template nor the processor uses it")
    elif name in AUDIO:
        _check_audio(name, value)
    elif name in _CHAT_ONLY:
        if value not in (None, False):
            raise UsageError(f"{name} is an option of apply_chat_template(tokenize=True), not of this call")
    else:
        raise _unknown_option_error(name, variables)


def _check_audio(name: str, value: Any) -> None:
    if value is not None and name in AUDIO and not (name == "load_audio_backend" and value == "auto"):
        raise UsageError(f"{name} is {str(value)[:80]!r}, but this model takes no audio; leave it out")


def _unknown_option_error(name: str, variables: Collection[str], where: str = "") -> UsageError:
    names = {*variables, *AUDIO, *_TEMPLATE_NEUTRAL, *_CHAT_ONLY, "chat_template"}.union(*PARTS.values())
    close = difflib.get_close_matches(name, sorted(names), n=1)
    hint = f"did you mean {close[0]}?" if close else "no processor, tokenizer or chat template knows it"
    return UsageError(f"unknown option{where}: {name[:80]}; {hint}")


def _is_equal(first: Any, second: Any) -> bool:
    """Return whether two values are the same, including arrays."""
    if first is second:
        return True
    try:
        return bool(type(first) is type(second) and first == second)
    except (ValueError, RuntimeError):  # arrays and tensors of several elements
        return False


def check_chat_text(kwargs: Mapping[str, Any], adds_special_tokens: bool) -> None:
    """Reject text options that have no meaning for a chat, unless their value requests nothing.

    Args:
        kwargs: text options by name.
        adds_special_tokens: whether the tokenizer adds tokens around a text.

    Raises:
        UsageError: the error names the option.
    """
    for name, neutral in _TEXT_NEUTRAL.items():
        if name in kwargs and kwargs[name] not in neutral:
            raise UsageError(f"{name} is {str(kwargs[name])[:80]!r}; apply_chat_template cannot do that, leave it out")
    if kwargs.get("add_special_tokens") and adds_special_tokens:
        raise UsageError("add_special_tokens is True, but the chat template writes all special tokens; leave it out")


__all__ = ["PARTS", "check_chat_text", "sort_options"]
