r"""Read conversations from JSON lines in InternVL's form or as chat messages.

InternVL and LLaVA: {"id", "image" and "video": a path or a list of them, "conversations": [{"from": "human", "value":
"<image>\nQuestion"}, {"from": "gpt", "value": "Answer"}, ...]}. Chat messages: {"messages": [{"role", "content": text
or parts}], "images" and "videos": lists}. A part is {"type": "text", "text"}, or {"type": "image" or "video"} with its
path under that name, "path" or "url", else the next of the lists. Called by `pvc ask FILE.jsonl` and by training.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pvc.errors import ConfigError, UsageError

ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}
KINDS = ("image", "video")
# Maps a kind and a value of a record to a source for `pvc.media`; raises ConfigError if there is none.
Resolve = Callable[[str, Any], Any]
_PLACEHOLDER = re.compile(r"<(image|video)>\n?")


@dataclass(frozen=True)
class Record:
    """One conversation of a file.

    Attributes:
        id: "id" of the record, else its line number.
        line: line number, from 1.
        messages: messages as a chat template takes them, with media as paths or bytes.
    """

    id: str
    line: int
    messages: tuple[dict[str, Any], ...]

    @property
    def kind(self) -> str:
        """Kind of the media: "video" if there is one among them, else "image"."""
        parts = [part["type"] for message in self.messages for part in message["content"]]
        return "video" if "video" in parts else "image"


@dataclass(frozen=True)
class BadRecord:
    """A line that cannot be read as a conversation.

    Attributes:
        line: line number, from 1.
        reason: the error.
    """

    line: int
    reason: str


def read_records(path: str | Path) -> list[Record]:
    """Read all records of a file.

    Raises:
        UsageError: the file cannot be read.
        ConfigError: a record is malformed (the error names its line), or there is none.
    """
    records, bad_records = scan_records(path)
    if bad_records:
        raise ConfigError(f"{path}, line {bad_records[0].line}: {bad_records[0].reason}")
    if not records:
        raise ConfigError(f"{path} has no rows")
    return records


def scan_records(path: str | Path) -> tuple[list[Record], list[BadRecord]]:
    """Read the records of a file, and list the lines that are malformed.

    Raises:
        UsageError: the file cannot be read.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    records: list[Record] = []
    bad_records: list[BadRecord] = []
    # Not splitlines: JSON strings may contain other separators, such as U+2028.
    for number, line in enumerate(data.split(b"\n"), 1):
        if line.strip():
            try:
                records.append(_parse_line(line, number, path.parent))
            except ConfigError as error:
                bad_records.append(BadRecord(number, str(error)))
    return records, bad_records


def _parse_line(line: bytes, number: int, folder: Path) -> Record:
    try:
        data = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
    except UnicodeDecodeError as error:
        raise ConfigError("not UTF-8 text") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"not JSON: {error}") from error
    if not isinstance(data, dict):
        raise ConfigError("not an object")
    return parse_record(data, number, beside(folder))


def beside(folder: Path) -> Resolve:
    """Build a Resolve for media paths relative to a folder."""

    def resolve(kind: str, value: Any) -> Path:
        if not isinstance(value, str) or not value:
            raise ConfigError(f"'{kind}' must be a path or a list of paths")
        if value.startswith(("http://", "https://", "data:")):
            raise ConfigError(f"'{kind}' must be a file, not an address")
        return folder / value.removeprefix("file://")

    return resolve


def parse_record(data: dict[str, Any], number: int, resolve: Resolve) -> Record:
    """Parse one object of either form.

    Args:
        data: the object.
        number: line number, from 1.
        resolve: finds the media.

    Raises:
        ConfigError: the object is malformed.
    """
    media = {kind: iter(_resolve_media(data, kind, resolve)) for kind in KINDS}
    messages = tuple(
        _parse_messages(data["messages"], media, resolve) if "messages" in data else _parse_turns(data, media)
    )
    for kind, remaining in media.items():
        if count := len(list(remaining)):
            raise ConfigError(f"{count} more of '{kind}' than <{kind}> in the conversation")
    return Record(str(data.get("id", number)), number, messages)


def _parse_turns(data: dict[str, Any], media: dict[str, Iterator[Any]]) -> Iterator[dict[str, Any]]:
    """Parse the turns of InternVL's form."""
    turns = data.get("conversations")
    if not isinstance(turns, list) or not turns:
        raise ConfigError("'conversations' must be a list of turns")
    for turn in turns:
        role = ROLES.get(str(turn.get("from"))) if isinstance(turn, dict) else None
        if role is None or not isinstance(turn.get("value"), str):
            raise ConfigError(f"a turn must have 'from' ({', '.join(ROLES)}) and a text 'value'")
        yield {"role": role, "content": list(_split_placeholders(_check_text(turn["value"]), role, media))}


def _parse_messages(messages: Any, media: dict[str, Iterator[Any]], resolve: Resolve) -> Iterator[dict[str, Any]]:
    """Parse chat messages; text outside of text parts is not searched for placeholders."""
    if not isinstance(messages, list) or not messages:
        raise ConfigError("'messages' must be a list of messages")
    for message in messages:
        if not isinstance(message, dict) or message.get("role") not in ("user", "assistant", "system"):
            raise ConfigError("a message must have a 'role': user, assistant or system")
        content = message.get("content")
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
        if not isinstance(parts, list):
            raise ConfigError("a message's 'content' must be text or a list of parts")
        role = message["role"]
        yield {
            "role": role,
            "content": [parsed for part in parts for parsed in _parse_part(part, role, media, resolve)],
        }


def _parse_part(part: Any, role: str, media: dict[str, Iterator[Any]], resolve: Resolve) -> Iterator[dict[str, Any]]:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind == "text" and isinstance(part.get("text"), str):
        if part["text"]:
            yield {"type": "text", "text": _check_text(part["text"])}
        return
    if kind not in KINDS:
        raise ConfigError("a part must have a 'type': text (with a text 'text'), image or video")
    if role != "user":
        raise ConfigError(f"only a user shows an {kind}" if kind == "image" else "only a user shows a video")
    # In data from tables, every part has every key, and missing ones are null.
    source = next((part[key] for key in (kind, "path", "url") if part.get(key) is not None), None)
    media_source = resolve(kind, source) if source is not None else next(media[kind], None)
    if media_source is None:
        raise ConfigError(f"more parts of type {kind} than paths under '{kind}s'")
    yield {"type": kind, kind: media_source}


def _split_placeholders(value: str, role: str, media: dict[str, Iterator[Any]]) -> Iterator[dict[str, Any]]:
    # Only a user sends media; in an answer "<image>" is text.
    pieces = _PLACEHOLDER.split(value) if role == "user" else [value]
    for index, piece in enumerate(pieces):
        if index % 2 == 0:
            if piece:
                yield {"type": "text", "text": piece}
            continue
        path = next(media[piece], None)
        if path is None:
            raise ConfigError(f"more <{piece}> in the conversation than paths under '{piece}'")
        yield {"type": piece, piece: path}


def _check_text(text: str) -> str:
    """Return the text. Raise ConfigError for a lone surrogate, which JSON can escape but UTF-8 cannot encode."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ConfigError("a turn's text is not valid Unicode") from None
    return text


def _resolve_media(data: dict[str, Any], kind: str, resolve: Resolve) -> list[Any]:
    """Find the pictures or videos under "image" or "images"; null, which some exports write, means none."""
    candidates = [data[key] for key in (kind, f"{kind}s") if data.get(key) is not None]
    if len(candidates) > 1:
        raise ConfigError(f"'{kind}' and '{kind}s' in one row")
    values = candidates[0] if candidates else []
    return [resolve(kind, value) for value in (values if isinstance(values, list) else [values])]


__all__ = ["KINDS", "BadRecord", "Record", "Resolve", "beside", "parse_record", "read_records", "scan_records"]
