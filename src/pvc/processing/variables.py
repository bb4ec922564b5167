"""Values that a chat template reads besides texts: tools, documents, variables, further keys of messages.

A template may compare them, so they are handed over as they are. Only the characters from which a control token could
be put together are replaced by markers (property P8). Called by `chat_tokens.py` and PVCProcessor.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any


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


@dataclasses.dataclass
class ControlMarker:
    """Puts markers in the place of characters at which a control token could begin or be continued.

    Attributes:
        mark: makes a marker of one character.
        tokens: the control tokens.
        template: source of the chat template. Keys of mappings that it names are left alone, for it looks them up.
        is_strict: mark also where the template would have to write the beginning of the token, as in `<`, a value
            and `>`. A template that compares the value with a literal then finds them different.
        exempt: keys that were left alone although the template could make a control token of them.
    """

    mark: Callable[[str], str]
    tokens: list[str]
    template: str
    is_strict: bool = True
    exempt: set[str] = dataclasses.field(default_factory=set)

    def __call__(self, value: Any) -> Any:
        """Return strings, and lists and mappings of them, with markers."""
        if isinstance(value, str):
            return self._mark(value, self.is_strict)
        if isinstance(value, Mapping):
            return {self._key(key): self(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self(item) for item in value]
        return value

    def _key(self, key: Any) -> Any:
        if not isinstance(key, str):
            return key
        if key in self.template and unsafe_places(key, self.tokens):
            self.exempt.add(key)
            return self._mark(key, False)
        return self._mark(key, True)

    def _mark(self, text: str, is_strict: bool) -> str:
        places = unsafe_places(text, self.tokens, is_strict)
        return "".join(self.mark(letter) if place in places else letter for place, letter in enumerate(text))


def unsafe_places(text: str, tokens: list[str], is_strict: bool = True) -> set[int]:
    """Find the characters of `text` at which a control token begins or may begin, or with `is_strict` is continued."""
    first = {token[0] for token in tokens}
    places = {
        place
        for place, letter in enumerate(text)
        if letter in first and any(token.startswith(text[place : place + len(token)]) for token in tokens)
    }
    if text and is_strict and any(_continues(text, token) for token in tokens):
        places.add(0)
    return places


def _continues(text: str, token: str) -> bool:
    """Whether `text`, or its beginning, stands in `token` after the first character and up to an end of one of them."""
    return token.find(text, 1) > 0 or any(text.startswith(token[place:]) for place in range(1, len(token)))


__all__ = ["ControlMarker", "as_plain_data", "unsafe_places"]
