"""Values that a chat template reads besides texts: tools, documents, variables, further keys of messages.

A template may compare them, so they are handed over as they are. Only the characters from which a control token could
be put together are replaced by markers (property P8). Called by `chat.py` and PVCProcessor.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from pvc.processing.plain import PlainEncoder


def as_plain_data(value: Any) -> Any:
    """Return dataclasses and pydantic models, also inside of lists and mappings, as dictionaries."""
    if isinstance(value, Mapping):
        return {key: as_plain_data(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_plain_data(item) for item in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type) and not _is_medium(value):
        return {item.name: as_plain_data(getattr(value, item.name)) for item in dataclasses.fields(value)}
    if callable(getattr(value, "model_dump", None)) and not isinstance(value, type):
        return as_plain_data(value.model_dump())
    return value


def _is_medium(value: Any) -> bool:
    """Whether a dataclass is a `pvc.media.Picture` or `Video`."""
    return getattr(value, "kind", None) in ("image", "video")


def mark_controls(value: Any, mark: Callable[[str], str], plain: PlainEncoder, template: str) -> Any:
    """Return `value` with a marker for every character at which a control token could begin or be completed.

    Args:
        value: strings, and lists and mappings of them; keys of mappings are looked at, too.
        mark: makes a marker of one character.
        plain: knows the control tokens.
        template: source of the chat template.
    """
    if isinstance(value, str):
        places = unsafe_places(value, plain.added, template)
        return "".join(mark(letter) if place in places else letter for place, letter in enumerate(value))
    if isinstance(value, Mapping):
        return {
            mark_controls(key, mark, plain, template): mark_controls(item, mark, plain, template)
            for key, item in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [mark_controls(item, mark, plain, template) for item in value]
    return value


def unsafe_places(text: str, tokens: list[str], template: str) -> set[int]:
    """Find the characters of `text` at which a control token begins, may begin, or is continued.

    A template can write `<`, a value and `>`. If it has the value as a literal, it may compare the two, so such a value
    is left alone as long as it holds no (beginning of a) control token.
    """
    first = {token[0] for token in tokens}
    places = {
        place
        for place, letter in enumerate(text)
        if letter in first and any(token.startswith(text[place : place + len(token)]) for token in tokens)
    }
    if text and text not in template and any(_continues(text, token) for token in tokens):
        places.add(0)
    return places


def _continues(text: str, token: str) -> bool:
    """Whether `text`, or its beginning, stands in `token` after the first character and up to an end of one of them."""
    return token.find(text, 1) > 0 or any(text.startswith(token[place:]) for place in range(1, len(token)))


__all__ = ["as_plain_data", "mark_controls", "unsafe_places"]
