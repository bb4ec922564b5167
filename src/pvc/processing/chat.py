"""Typed chat messages to ids, so that no user text can ever become a control or placeholder id (property P8).

The template is rendered with a marker where every text stands; what the template wrote is tokenized with its
control tokens, every text on its own without. Leaves out media (`processor.py`). Called by PVCProcessor.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from pvc.errors import MismatchError, UsageError

# A role is written into the prompt by the template, so it must not be free text.
ROLES = ("system", "developer", "user", "assistant", "tool")
MEDIA_KEYS = {"image": ("image", "path", "url"), "video": ("video", "path", "url")}


@dataclass
class ChatTokens:
    """Ids of a conversation.

    Attributes:
        ids: token ids.
        assistant: 1 where an id belongs to an assistant's text or ends its turn, else 0: what training predicts.
    """

    ids: list[int] = field(default_factory=list)
    assistant: list[int] = field(default_factory=list)

    def extend(self, ids: Sequence[int], assistant: int = 0) -> None:
        self.ids += ids
        self.assistant += [assistant] * len(ids)


@dataclass
class MarkedChat:
    """Messages whose texts are replaced by markers, and what the markers and media parts stand for."""

    messages: list[dict[str, Any]] = field(default_factory=list)
    texts: list[str | list[int]] = field(default_factory=list)
    roles: list[str] = field(default_factory=list)
    images: list[Any] = field(default_factory=list)
    videos: list[Any] = field(default_factory=list)
    nonce: str = field(default_factory=lambda: secrets.token_hex(8))

    def mark(self, text: str | list[int], role: str) -> str:
        self.texts.append(text)
        self.roles.append(role)
        return f"[{self.nonce}:{len(self.texts) - 1}]"

    @property
    def pattern(self) -> re.Pattern[str]:
        return re.compile(rf"\[{self.nonce}:(\d+)\]")


def mark_messages(messages: Sequence[dict[str, Any]]) -> MarkedChat:
    """Check messages and take their texts and media out.

    A message is `{"role": ..., "content": ...}`; content is a string or a list of parts: `{"type": "text",
    "text": ...}`, `{"type": "image", "image": source}`, `{"type": "video", "video": source}`, or
    `{"type": "tokens", "tokens": ids}` for what a model generated itself.

    Raises:
        UsageError: anything else.
    """
    marked = MarkedChat()
    for number, message in enumerate(messages):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str) or "content" not in message:
            raise UsageError(f"message {number} must be a dictionary with 'role' and 'content'")
        role, content = message["role"], message["content"]
        if role not in ROLES:
            raise UsageError(f"the role of message {number} must be one of {', '.join(ROLES)}, not {role[:40]!r}")
        if isinstance(content, str):
            marked.messages.append({"role": role, "content": marked.mark(content, role) if content else ""})
            continue
        if not isinstance(content, (list, tuple)):
            raise UsageError(f"the content of message {number} must be a string or a list of parts")
        marked.messages.append({"role": role, "content": [_mark_part(part, role, marked, number) for part in content]})
    return marked


def _mark_part(part: Any, role: str, marked: MarkedChat, number: int) -> dict[str, str]:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind == "text" and isinstance(part.get("text"), str):
        return {"type": "text", "text": marked.mark(part["text"], role) if part["text"] else ""}
    if kind == "tokens":
        if role != "assistant":
            raise UsageError(f"message {number}: only an assistant's turn may hold a part of type 'tokens'")
        return {"type": "text", "text": marked.mark([int(token) for token in part["tokens"]], role)}
    if kind in MEDIA_KEYS:
        sources = [part[key] for key in MEDIA_KEYS[kind] if key in part]
        if len(sources) != 1:
            raise UsageError(f"a part of message {number} must have exactly one of {', '.join(MEDIA_KEYS[kind])}")
        (marked.images if kind == "image" else marked.videos).append(sources[0])
        return {"type": kind}
    raise UsageError(f"message {number} has a part that is not text, image or video: {str(part)[:80]!r}")


def encode_rendered(
    rendered: str, marked: MarkedChat, tokenize: Callable[[str], list[int]], plain: PlainEncoder, eos: int | None
) -> ChatTokens:
    """Ids of a rendered template: `tokenize` for what the template wrote, `plain` for the texts behind markers.

    Raises:
        MismatchError: the template dropped, repeated or reordered a text.
    """
    tokens = ChatTokens()
    pieces = marked.pattern.split(rendered)
    order = [int(index) for index in pieces[1::2]]
    if order != list(range(len(marked.texts))):
        raise MismatchError(
            f"the chat template placed {len(order)} texts ({len(set(order))} different), "
            f"but the messages have {len(marked.texts)}"
        )
    last_role = ""
    for place, piece in enumerate(pieces):
        if place % 2 == 0:
            ids = tokenize(piece) if piece else []
            ends_turn = bool(ids) and last_role == "assistant" and ids[0] == eos
            tokens.extend(ids[:1], int(ends_turn))
            tokens.extend(ids[1:])
        else:
            text, last_role = marked.texts[int(piece)], marked.roles[int(piece)]
            ids = text if isinstance(text, list) else plain(text)
            tokens.extend(ids, int(last_role == "assistant"))
    return tokens


class PlainEncoder:
    """Tokenizes text as text: added tokens in it (`<image>`, `<|im_end|>`, ...) come out as ordinary pieces."""

    def __init__(self, tokenizer: Any) -> None:
        added = [str(token) for token in tokenizer.added_tokens_decoder.values()]
        self.control = set(tokenizer.added_tokens_decoder) | set(tokenizer.all_special_ids)
        self.tokenizer = tokenizer
        ordered = sorted((token for token in added if token), key=len, reverse=True)
        self.pattern = re.compile("|".join(map(re.escape, ordered))) if ordered else None

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


__all__ = ["ChatTokens", "MarkedChat", "PlainEncoder", "encode_rendered", "mark_messages"]
