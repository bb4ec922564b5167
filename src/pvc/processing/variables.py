"""Mark values that a chat template reads besides texts: tools, documents, variables, further keys of messages.

A template may compare these values, so they are passed unchanged. Only characters from which a control token could be
composed are replaced by markers (property P8). Called by `chat_tokens.py` and `template.py`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any


def to_plain_data(value: Any) -> Any:
    """Convert dataclasses and pydantic models, also inside of lists and mappings, to dictionaries."""
    if isinstance(value, Mapping):
        return {key: to_plain_data(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_plain_data(item) for item in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type) and not _is_medium(value):
        return {item.name: to_plain_data(getattr(value, item.name)) for item in dataclasses.fields(value)}
    if callable(getattr(value, "model_dump", None)) and not isinstance(value, type):
        return to_plain_data(value.model_dump())
    return value


def _is_medium(value: Any) -> bool:
    """Return whether a dataclass is a `pvc.media.Picture` or `Video`."""
    return getattr(value, "kind", None) in ("image", "video")


@dataclasses.dataclass
class ControlMarker:
    """Replaces characters at which a control token could begin or be continued by markers.

    Attributes:
        mark: builds the marker of one character.
        tokens: the control tokens.
        template: source of the chat template. Keys of mappings that it names stay unmarked, because it looks them up.
        is_strict: mark also if the template would have to write the beginning of the token, as in `<`, a value and `>`.
            If the template compares the value with a literal, they then differ.
        exempt: keys that stayed unmarked although the template could build a control token from them.
    """

    mark: Callable[[str], str]
    tokens: list[str]
    template: str
    is_strict: bool = True
    exempt: set[str] = dataclasses.field(default_factory=set)

    def __call__(self, value: Any) -> Any:
        """Mark strings, and strings in lists and mappings."""
        if isinstance(value, str):
            return self._mark_text(value, self.is_strict)
        if isinstance(value, Mapping):
            return {self._mark_key(key): self(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self(item) for item in value]
        return value

    def _mark_key(self, key: Any) -> Any:
        if not isinstance(key, str):
            return key
        if key in self.template and find_unsafe_positions(key, self.tokens):
            self.exempt.add(key)
            return self._mark_text(key, False)
        return self._mark_text(key, True)

    def _mark_text(self, text: str, is_strict: bool) -> str:
        positions = find_unsafe_positions(text, self.tokens, is_strict)
        return "".join(self.mark(letter) if position in positions else letter for position, letter in enumerate(text))


def find_unsafe_positions(text: str, tokens: list[str], is_strict: bool = True) -> set[int]:
    """Find the characters of a text at which a control token could begin or, if `is_strict`, be continued.

    Args:
        text: the text.
        tokens: the control tokens.
        is_strict: whether to include the continuation of a token that begins before the text.

    Returns:
        Positions in `text`.
    """
    first = {token[0] for token in tokens}
    positions = {
        position
        for position, letter in enumerate(text)
        if letter in first and any(token.startswith(text[position : position + len(token)]) for token in tokens)
    }
    if text and is_strict and any(_continues(text, token) for token in tokens):
        positions.add(0)
    return positions


def _continues(text: str, token: str) -> bool:
    """Return whether `text`, or its beginning, occurs in `token` after the first character, up to the end of either."""
    return token.find(text, 1) > 0 or any(text.startswith(token[position:]) for position in range(1, len(token)))


__all__ = ["ControlMarker", "find_unsafe_positions", "to_plain_data"]
