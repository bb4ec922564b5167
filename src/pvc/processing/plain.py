"""Encodes text as text: no control token that a text spells out becomes a control id. Called by `chat_tokens.py`."""

from __future__ import annotations

import re
from typing import Any

from pvc.errors import UsageError


class PlainEncoder:
    """Tokenizes text as text: added tokens in it (`<image>`, `<|im_end|>`, ...) come out as ordinary pieces."""

    def __init__(self, tokenizer: Any) -> None:
        added = [str(token) for token in tokenizer.added_tokens_decoder.values()]
        self.control = set(tokenizer.added_tokens_decoder) | set(tokenizer.all_special_ids)
        self.tokenizer = tokenizer
        self.added = sorted((token for token in added if token), key=len, reverse=True)
        self.pattern = re.compile("|".join(map(re.escape, self.added))) if self.added else None

    def __call__(self, text: str) -> list[int]:
        """Ids of `text`, none of them a control id.

        Raises:
            UsageError: the text holds half of a surrogate pair, or the tokenizer would make control ids of it
                whatever is done.
        """
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise UsageError("the text is not valid Unicode (a lone surrogate)") from error
        ids = [token for piece in self._split(text) for token in self._encode(piece)]
        if self.control.intersection(ids):
            ids = [token for character in text for token in self._encode(character)]
        if found := self.control.intersection(ids):
            raise UsageError(f"the tokenizer turns plain text into control ids {sorted(found)}")
        return ids

    def _split(self, text: str) -> list[str]:
        """Cut after the first character of every added token, so that none of them is matched."""
        if self.pattern is None:
            return [text]
        pieces, start, search = [], 0, 0
        while match := self.pattern.search(text, search):
            cut = match.start() + 1
            pieces.append(text[start:cut])
            start = search = cut
        return [*pieces, text[start:]]

    def _encode(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False)["input_ids"] if text else []


__all__ = ["PlainEncoder"]
