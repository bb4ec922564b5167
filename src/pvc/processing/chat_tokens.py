"""Typed chat messages to ids, so that no user text can ever become a control or placeholder id (property P8).

The template is rendered with a marker where every text stands; what the template wrote is tokenized with its
control tokens, every text on its own without. Leaves out media (`processor.py`), and the values that a template reads
besides messages (`variables.py`). Called by PVCProcessor.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from pvc.errors import MismatchError, UsageError
from pvc.processing.data_urls import decode_base64
from pvc.processing.plain import PlainEncoder
from pvc.processing.variables import as_plain_data

# A role is written into the prompt by the template, so it must not be free text.
ROLES = ("system", "developer", "user", "assistant", "tool")
MEDIA_KEYS = {"image": ("image", "path", "url", "base64"), "video": ("video", "path", "url")}
# Parts in the form of OpenAI's API: the type of the part, and the kind of medium.
OPENAI_PARTS = {"image_url": "image", "video_url": "video"}

Span = tuple[int, int]
# Encodes what the template wrote; the spans are characters of it, and the second list is 1 where an id has one of them.
Tokenize = Callable[[str, Sequence[Span]], tuple[list[int], list[int]]]


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

    def mark_character(self, character: str) -> str:
        """Marker of one character of a value that the template may repeat, reorder or leave out."""
        return f"[{self.nonce}:u{ord(character)}]"

    @property
    def pattern(self) -> re.Pattern[str]:
        return re.compile(rf"\[{self.nonce}:(u?\d+)\]")

    def restore_characters(self, rendered: str) -> str:
        """Put characters back in the place of their markers; markers of texts stay."""
        return re.sub(rf"\[{self.nonce}:u(\d+)\]", lambda match: chr(int(match[1])), rendered)


def as_conversations(conversation: Any) -> list[Any]:
    """List the conversations in what a caller passed: messages, or a list of conversations."""
    conversation = getattr(conversation, "messages", conversation)
    if not isinstance(conversation, (list, tuple)):
        raise UsageError(f"a conversation must be a list of messages, not a {type(conversation).__name__}")
    if conversation and (isinstance(conversation[0], (list, tuple)) or hasattr(conversation[0], "messages")):
        return [getattr(chat, "messages", chat) for chat in conversation]
    return [conversation]


def mark_messages(messages: Sequence[Any], template: str) -> MarkedChat:
    """Check messages and take their texts and media out.

    A message is `{"role": ..., "content": ...}`; content is a string or a list of parts: `{"type": "text",
    "text": ...}`, `{"type": "image", "image": source}`, `{"type": "video", "video": source}`, the same in OpenAI's
    form (`image_url`, `video_url`), or `{"type": "tokens", "tokens": ids}` for what a model generated itself. Keys
    whose value is None are ignored, other keys are kept for the template.

    Args:
        messages: dictionaries, dataclasses or pydantic models.
        template: source of the chat template.

    Raises:
        UsageError: anything else.
    """
    marked = MarkedChat()
    for number, message in enumerate(messages):
        message = as_plain_data(message)
        if isinstance(message, dict):
            message = {key: value for key, value in message.items() if value is not None}
        calls = isinstance(message, dict) and bool(message.get("tool_calls"))
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise UsageError(f"message {number} must be a dictionary with 'role' and 'content'")
        role = message["role"]
        if "content" not in message and not calls:
            raise UsageError(f"message {number} must have 'content' (or 'tool_calls')")
        if role not in ROLES:
            raise UsageError(f"the role of message {number} must be one of {', '.join(ROLES)}, not {role[:40]!r}")
        if calls and "tool_calls" not in template:
            raise UsageError(f"message {number} has tool_calls, but the chat template has no place for them")
        # Further keys are marked when the template is rendered (`template.py`).
        marked.messages.append({**message, "role": role})
        if "content" in message:
            marked.messages[-1]["content"] = _mark_content(message["content"], role, marked, number)
    return marked


def _mark_content(content: Any, role: str, marked: MarkedChat, number: int) -> str | list[dict[str, str]]:
    if isinstance(content, str):
        return marked.mark(content, role) if content else ""
    if not isinstance(content, (list, tuple)):
        raise UsageError(f"the content of message {number} must be a string or a list of parts")
    return [_mark_part(part, role, marked, number) for part in content]


def _mark_part(part: Any, role: str, marked: MarkedChat, number: int) -> dict[str, str]:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind == "text" and isinstance(part.get("text"), str):
        return {"type": "text", "text": marked.mark(part["text"], role) if part["text"] else ""}
    if kind == "tokens":
        if role != "assistant":
            raise UsageError(f"message {number}: only an assistant's turn may hold a part of type 'tokens'")
        return {"type": "text", "text": marked.mark([int(token) for token in part["tokens"]], role)}
    if kind in OPENAI_PARTS:
        address = part.get(kind)
        address = address.get("url") if isinstance(address, dict) else address
        if not isinstance(address, str) or not address:
            raise UsageError(f"a part of message {number} must have a 'url' in its {kind!r}")
        kind = OPENAI_PARTS[kind]
        part = {kind: address}
    if kind in MEDIA_KEYS:
        # Tables give every part every key, null where it has none.
        named = [(key, part[key]) for key in MEDIA_KEYS[kind] if part.get(key) is not None]
        if len(named) != 1:
            raise UsageError(f"a part of message {number} must have exactly one of {', '.join(MEDIA_KEYS[kind])}")
        key, source = named[0]
        source = decode_base64(source, f"the base64 of message {number}") if key == "base64" else source
        (marked.images if kind == "image" else marked.videos).append(source)
        return {"type": kind}
    raise UsageError(f"message {number} has a part that is not text, image or video: {str(part)[:80]!r}")


def encode_rendered(
    rendered: str,
    marked: MarkedChat,
    tokenize: Tokenize,
    plain: PlainEncoder,
    eos: int | None,
    generated: Sequence[Span] | None = None,
) -> ChatTokens:
    """Encode a rendered template: `tokenize` for what the template wrote, `plain` for the texts behind markers.

    Args:
        rendered: the template's output.
        marked: the messages that were rendered.
        tokenize: encodes what the template wrote, control tokens included.
        plain: encodes texts without control tokens.
        eos: the id that ends a turn.
        generated: characters of `rendered` that the template declares as generated by an assistant. If it declares
            none, an assistant's texts and the ends of its turns count.

    Raises:
        MismatchError: the template dropped, repeated or reordered a text.
    """
    tokens = ChatTokens()
    pieces = marked.pattern.split(rendered)
    order = [int(index) for index in pieces[1::2] if not index.startswith("u")]
    if order != list(range(len(marked.texts))):
        raise MismatchError(
            f"the chat template placed {len(order)} texts ({len(set(order))} different), "
            f"but the messages have {len(marked.texts)}"
        )
    starts = [0, *(edge for match in marked.pattern.finditer(rendered) for edge in match.span())]
    last_role = ""
    for place, (start, piece) in enumerate(zip(starts, pieces, strict=True)):
        if place % 2:
            role, ids = "", plain(chr(int(piece[1:]))) if piece.startswith("u") else []
            if not piece.startswith("u"):
                text, role = marked.texts[int(piece)], marked.roles[int(piece)]
                ids, last_role = text if isinstance(text, list) else plain(text), role
            is_assistant = role == "assistant" if generated is None else overlaps(start, start + 1, generated)
            tokens.extend(ids, int(is_assistant))
        elif piece:
            ids, flags = tokenize(piece, [(first - start, last - start) for first, last in generated or ()])
            if generated is None and last_role == "assistant" and ids[:1] == [eos]:
                flags[0] = 1
            tokens.ids += ids
            tokens.assistant += flags
    return tokens


def overlaps(first: int, last: int, spans: Sequence[Span]) -> bool:
    """Whether characters `first` to `last` (exclusive) have one in common with any of the spans."""
    return any(max(first, start) < min(last, end) for start, end in spans)


__all__ = ["ChatTokens", "MarkedChat", "as_conversations", "encode_rendered", "mark_messages", "overlaps"]
