"""Encode chat messages so that no user text can ever become a control or placeholder id (property P8).

The template is rendered with a marker in place of every text. The output of the template is tokenized with its control
tokens, every text separately without them. Media are handled by processor.py, values that a template reads besides
messages by variables.py. Called by PVCProcessor.
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
from pvc.processing.variables import to_plain_data

# A role is written into the prompt by the template, so it must not be free text.
ROLES = ("system", "developer", "user", "assistant", "tool")
MEDIA_KEYS = {"image": ("image", "path", "url", "base64"), "video": ("video", "path", "url")}
# Parts in OpenAI's form: type of the part, and kind of medium.
OPENAI_PARTS = {"image_url": "image", "video_url": "video"}

Span = tuple[int, int]
# Encodes output of the template. The spans are character ranges; the second list is 1 if an id overlaps one of them.
Tokenize = Callable[[str, Sequence[Span]], tuple[list[int], list[int]]]


@dataclass
class ChatTokens:
    """Ids of a conversation.

    Attributes:
        ids: token ids.
        assistant: 1 if an id belongs to an assistant's text or ends its turn, else 0. Training predicts these ids.
    """

    ids: list[int] = field(default_factory=list)
    assistant: list[int] = field(default_factory=list)

    def extend(self, ids: Sequence[int], assistant: int = 0) -> None:
        """Append ids.

        Args:
            ids: token ids.
            assistant: 1 if an assistant wrote them, else 0.
        """
        self.ids += ids
        self.assistant += [assistant] * len(ids)


@dataclass
class MarkedChat:
    """Messages whose texts are replaced by markers, and the texts and media that were replaced.

    Attributes:
        messages: messages with markers.
        texts: text, or ids that a model generated, of each marker.
        roles: role of the message of each marker.
        images: sources of images in order.
        videos: sources of videos in order.
        nonce: random part of the markers, so that no text can contain one.
    """

    messages: list[dict[str, Any]] = field(default_factory=list)
    texts: list[str | list[int]] = field(default_factory=list)
    roles: list[str] = field(default_factory=list)
    images: list[Any] = field(default_factory=list)
    videos: list[Any] = field(default_factory=list)
    nonce: str = field(default_factory=lambda: secrets.token_hex(8))

    def mark(self, text: str | list[int], role: str) -> str:
        """Return a new marker for `text`.

        Args:
            text: the text, or the ids of a part of type "tokens".
            role: role of its message.
        """
        self.texts.append(text)
        self.roles.append(role)
        return f"[{self.nonce}:{len(self.texts) - 1}]"

    def mark_character(self, character: str) -> str:
        """Return the marker of one character of a value that the template may repeat, reorder or leave out."""
        return f"[{self.nonce}:u{ord(character)}]"

    @property
    def pattern(self) -> re.Pattern[str]:
        """Pattern of the markers of texts and characters."""
        return re.compile(rf"\[{self.nonce}:(u?\d+)\]")

    def restore_characters(self, rendered: str) -> str:
        """Replace the markers of characters by the characters; markers of texts stay."""
        return re.sub(rf"\[{self.nonce}:u(\d+)\]", lambda match: chr(int(match[1])), rendered)


def list_conversations(conversation: Any) -> list[Any]:
    """List the conversations that a caller passed: messages, or a list of conversations.

    Raises:
        UsageError: `conversation` is not a list.
    """
    conversation = getattr(conversation, "messages", conversation)
    if not isinstance(conversation, (list, tuple)):
        raise UsageError(f"a conversation must be a list of messages, not a {type(conversation).__name__}")
    if conversation and (isinstance(conversation[0], (list, tuple)) or hasattr(conversation[0], "messages")):
        return [getattr(chat, "messages", chat) for chat in conversation]
    return [conversation]


def mark_messages(messages: Sequence[Any], template: str) -> MarkedChat:
    """Check messages, and replace their texts and media by markers.

    A message is `{"role": ..., "content": ...}`; content is a string or a list of parts: `{"type": "text",
    "text": ...}`, `{"type": "image", "image": source}`, `{"type": "video", "video": source}`, the same in OpenAI's form
    (`image_url`, `video_url`), or `{"type": "tokens", "tokens": ids}` for ids that a model generated. Keys whose value
    is None are ignored; other keys are passed to the template.

    Args:
        messages: dictionaries, dataclasses or pydantic models.
        template: source of the chat template.

    Raises:
        UsageError: anything else.
    """
    marked = MarkedChat()
    for number, message in enumerate(messages):
        message = to_plain_data(message)
        if isinstance(message, dict):
            message = {key: value for key, value in message.items() if value is not None}
        has_tool_calls = isinstance(message, dict) and bool(message.get("tool_calls"))
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise UsageError(f"message {number} must be a dictionary with 'role' and 'content'")
        role = message["role"]
        if "content" not in message and not has_tool_calls:
            raise UsageError(f"message {number} must have 'content' (or 'tool_calls')")
        if role not in ROLES:
            raise UsageError(f"the role of message {number} must be one of {', '.join(ROLES)}, not {role[:40]!r}")
        if has_tool_calls and "tool_calls" not in template:
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
        # In data from tables, every part has every key, and missing ones are null.
        sources = [(key, part[key]) for key in MEDIA_KEYS[kind] if part.get(key) is not None]
        if len(sources) != 1:
            raise UsageError(f"a part of message {number} must have exactly one of {', '.join(MEDIA_KEYS[kind])}")
        key, source = sources[0]
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
    """Encode a rendered template: its output with `tokenize`, the texts behind markers with `plain`.

    Args:
        rendered: the output of the template.
        marked: the messages that were rendered.
        tokenize: encodes the output of the template, including control tokens.
        plain: encodes texts without control tokens.
        eos: the id that ends a turn.
        generated: character ranges of `rendered` that the template declares as generated by an assistant. If it
            declares none, an assistant's texts and the ends of its turns count.

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
    for index, (start, piece) in enumerate(zip(starts, pieces, strict=True)):
        if index % 2:
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
    """Return whether a character range overlaps any of the spans.

    Args:
        first: first character.
        last: end of the range (exclusive).
        spans: ranges of characters.
    """
    return any(max(first, start) < min(last, end) for start, end in spans)


__all__ = ["ChatTokens", "MarkedChat", "encode_rendered", "list_conversations", "mark_messages", "overlaps"]
