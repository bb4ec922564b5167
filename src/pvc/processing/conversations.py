"""Conversations in files, to chat messages: JSON lines in InternVL's form or as chat messages.

InternVL and LLaVA: {"id", "image" and "video": a path or a list of them, "conversations": [{"from": "human", "value":
"<image>\\nQuestion"}, {"from": "gpt", "value": "Answer"}, ...]}. Chat messages: {"messages": [{"role", "content": text
or parts}], "images" and "videos": lists}; a part is {"type": "text", "text"}, or {"type": "image" or "video"} with
its path under that name, "path" or "url", or else the next of the lists. Paths are relative to the file. Leaves out
reading the media. Used by `pvc ask FILE.jsonl` and by training.
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
# What a row calls a picture or a video, to what `pvc.media` reads; raises ConfigError for what it cannot find.
Resolve = Callable[[str, Any], Any]
_PLACEHOLDER = re.compile(r"<(image|video)>\n?")


@dataclass(frozen=True)
class Record:
    """One conversation: `messages` as a chat template takes them, media as paths or bytes, and its line."""

    id: str
    line: int
    messages: tuple[dict[str, Any], ...]

    @property
    def kind(self) -> str:
        """ "video" if there is one among the media, else "image"."""
        parts = [part["type"] for message in self.messages for part in message["content"]]
        return "video" if "video" in parts else "image"


@dataclass(frozen=True)
class BadRecord:
    """A line that is no conversation, and why."""

    line: int
    reason: str


def read_records(path: str | Path) -> list[Record]:
    """All rows of a file.

    Raises:
        UsageError: the file cannot be read.
        ConfigError: a row is malformed, named with its line, or there is none.
    """
    rows, bad = scan_records(path)
    if bad:
        raise ConfigError(f"{path}, line {bad[0].line}: {bad[0].reason}")
    if not rows:
        raise ConfigError(f"{path} has no rows")
    return rows


def scan_records(path: str | Path) -> tuple[list[Record], list[BadRecord]]:
    """The rows of a file, and the lines that are none; raises UsageError where it cannot be read."""
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    rows: list[Record] = []
    bad: list[BadRecord] = []
    # Not splitlines: JSON strings may hold other separators, such as U+2028, as they are.
    for number, line in enumerate(data.split(b"\n"), 1):
        if line.strip():
            try:
                rows.append(_row(line, number, path.parent))
            except ConfigError as error:
                bad.append(BadRecord(number, str(error)))
    return rows, bad


def _row(line: bytes, number: int, folder: Path) -> Record:
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
    """Media by their paths, relative to a folder."""

    def resolve(kind: str, value: Any) -> Path:
        if not isinstance(value, str) or not value:
            raise ConfigError(f"'{kind}' must be a path or a list of paths")
        if value.startswith(("http://", "https://", "data:")):
            raise ConfigError(f"'{kind}' must be a file, not an address")
        return folder / value.removeprefix("file://")

    return resolve


def parse_record(data: dict[str, Any], number: int, resolve: Resolve) -> Record:
    """The conversation in one object of either form; raises ConfigError for one that is none."""
    media = {kind: iter(_named(data, kind, resolve)) for kind in KINDS}
    messages = tuple(_chat(data["messages"], media, resolve) if "messages" in data else _turns(data, media))
    for kind, left in media.items():
        if count := len(list(left)):
            raise ConfigError(f"{count} more of '{kind}' than <{kind}> in the conversation")
    return Record(str(data.get("id", number)), number, messages)


def _turns(data: dict[str, Any], media: dict[str, Iterator[Any]]) -> Iterator[dict[str, Any]]:
    """InternVL's form."""
    turns = data.get("conversations")
    if not isinstance(turns, list) or not turns:
        raise ConfigError("'conversations' must be a list of turns")
    for turn in turns:
        role = ROLES.get(str(turn.get("from"))) if isinstance(turn, dict) else None
        if role is None or not isinstance(turn.get("value"), str):
            raise ConfigError(f"a turn must have 'from' ({', '.join(ROLES)}) and a text 'value'")
        yield {"role": role, "content": list(_parts(_text(turn["value"]), role, media))}


def _chat(messages: Any, media: dict[str, Iterator[Any]], resolve: Resolve) -> Iterator[dict[str, Any]]:
    """Chat messages; other text than a part's own is never looked through for placeholders."""
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
        yield {"role": role, "content": [done for part in parts for done in _part(part, role, media, resolve)]}


def _part(part: Any, role: str, media: dict[str, Iterator[Any]], resolve: Resolve) -> Iterator[dict[str, Any]]:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind == "text" and isinstance(part.get("text"), str):
        if part["text"]:
            yield {"type": "text", "text": _text(part["text"])}
        return
    if kind not in KINDS:
        raise ConfigError("a part must have a 'type': text (with a text 'text'), image or video")
    if role != "user":
        raise ConfigError(f"only a user shows an {kind}" if kind == "image" else "only a user shows a video")
    # Tables give every part every key, null where it has none.
    own = next((part[key] for key in (kind, "path", "url") if part.get(key) is not None), None)
    found = resolve(kind, own) if own is not None else next(media[kind], None)
    if found is None:
        raise ConfigError(f"more parts of type {kind} than paths under '{kind}s'")
    yield {"type": kind, kind: found}


def _parts(value: str, role: str, media: dict[str, Iterator[Any]]) -> Iterator[dict[str, Any]]:
    # Only a user shows media; in an answer "<image>" is what the model says.
    pieces = _PLACEHOLDER.split(value) if role == "user" else [value]
    for place, piece in enumerate(pieces):
        if place % 2 == 0:
            if piece:
                yield {"type": "text", "text": piece}
            continue
        path = next(media[piece], None)
        if path is None:
            raise ConfigError(f"more <{piece}> in the conversation than paths under '{piece}'")
        yield {"type": piece, piece: path}


def _text(text: str) -> str:
    """The text, if it can be written: JSON can escape half of a surrogate pair, which is no character."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ConfigError("a turn's text is not valid Unicode") from None
    return text


def _named(data: dict[str, Any], kind: str, resolve: Resolve) -> list[Any]:
    """Pictures or videos under "image" or "images"; null, as exports write it, is none."""
    given = [data[key] for key in (kind, f"{kind}s") if data.get(key) is not None]
    if len(given) > 1:
        raise ConfigError(f"'{kind}' and '{kind}s' in one row")
    values = given[0] if given else []
    return [resolve(kind, value) for value in (values if isinstance(values, list) else [values])]


__all__ = ["KINDS", "BadRecord", "Record", "Resolve", "beside", "parse_record", "read_records", "scan_records"]
