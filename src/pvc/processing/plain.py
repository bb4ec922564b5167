"""Encode text so that no control token in it becomes a control id. Called by `chat_tokens.py`."""

from __future__ import annotations

import re
from typing import Any

from pvc.errors import UsageError


class PlainEncoder:
    """Tokenizes text as text: added tokens in it (`<image>`, `<|im_end|>`, ...) become ordinary pieces.

    Args:
        tokenizer: has the added tokens that must not be matched.
    """

    def __init__(self, tokenizer: Any) -> None:
        added_tokens = [str(token) for token in tokenizer.added_tokens_decoder.values()]
        self.control_ids = set(tokenizer.added_tokens_decoder) | set(tokenizer.all_special_ids)
        self.tokenizer = tokenizer
        self.added_tokens = sorted((token for token in added_tokens if token), key=len, reverse=True)
        self.pattern = re.compile("|".join(map(re.escape, self.added_tokens))) if self.added_tokens else None

    def __call__(self, text: str) -> list[int]:
        """Encode `text` to ids, none of which is a control id.

        Raises:
            UsageError: the text has a lone surrogate, or the tokenizer produces control ids in any case.
        """
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise UsageError("the text is not valid Unicode (a lone surrogate)") from error
        ids = [token for piece in self._split(text) for token in self._encode(piece)]
        if self.control_ids.intersection(ids):
            ids = [token for character in text for token in self._encode(character)]
        if matches := self.control_ids.intersection(ids):
            raise UsageError(f"the tokenizer turns plain text into control ids {sorted(matches)}")
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
