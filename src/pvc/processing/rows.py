"""Conversations in files: JSON lines as InternVL and LLaVA write them, to chat messages.

A row: {"id", "image" and "video": a path or a list of them, "conversations": [{"from": "human", "value":
"<image>\\nQuestion"}, {"from": "gpt", "value": "Answer"}, ...]}. Paths are relative to the file. Leaves out reading
the media. Used by `pvc ask FILE.jsonl` and by training.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pvc.errors import ConfigError, UsageError

ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}
_PLACEHOLDER = re.compile(r"<(image|video)>\n?")


@dataclass(frozen=True)
class Row:
    """One conversation: `messages` as a chat template takes them, media as paths, and the line it stands in."""

    id: str
    line: int
    messages: tuple[dict[str, Any], ...]

    @property
    def kind(self) -> str:
        """ "video" if there is one among the media, else "image"."""
        parts = [part["type"] for message in self.messages for part in message["content"]]
        return "video" if "video" in parts else "image"


@dataclass(frozen=True)
class BadRow:
    """A line that is no conversation, and why."""

    line: int
    reason: str


def read_rows(path: str | Path) -> list[Row]:
    """All rows of a file.

    Raises:
        UsageError: the file cannot be read.
        ConfigError: a row is malformed, named with its line, or there is none.
    """
    rows, bad = scan_rows(path)
    if bad:
        raise ConfigError(f"{path}, line {bad[0].line}: {bad[0].reason}")
    if not rows:
        raise ConfigError(f"{path} has no rows")
    return rows


def scan_rows(path: str | Path) -> tuple[list[Row], list[BadRow]]:
    """The rows of a file, and the lines that are none; raises UsageError where it cannot be read."""
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    rows: list[Row] = []
    bad: list[BadRow] = []
    # Not splitlines: JSON strings may hold other separators, such as U+2028, as they are.
    for number, line in enumerate(data.split(b"\n"), 1):
        if line.strip():
            try:
                rows.append(_row(line, number, path.parent))
            except ConfigError as error:
                bad.append(BadRow(number, str(error)))
    return rows, bad


def _row(line: bytes, number: int, folder: Path) -> Row:
    try:
        data = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
    except UnicodeDecodeError as error:
        raise ConfigError("not UTF-8 text") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"not JSON: {error}") from error
    if not isinstance(data, dict):
        raise ConfigError("not an object")
    return Row(str(data.get("id", number)), number, tuple(_messages(data, folder)))


def _messages(data: dict[str, Any], folder: Path) -> Iterator[dict[str, Any]]:
    media = {kind: iter(_paths(data, kind, folder)) for kind in ("image", "video")}
    turns = data.get("conversations")
    if not isinstance(turns, list) or not turns:
        raise ConfigError("'conversations' must be a list of turns")
    for turn in turns:
        role = ROLES.get(str(turn.get("from"))) if isinstance(turn, dict) else None
        if role is None or not isinstance(turn.get("value"), str):
            raise ConfigError(f"a turn must have 'from' ({', '.join(ROLES)}) and a text 'value'")
        if not _is_unicode(turn["value"]):
            raise ConfigError("a turn's text is not valid Unicode")
        yield {"role": role, "content": list(_parts(turn["value"], role, media))}
    for kind, left in media.items():
        if count := len(list(left)):
            raise ConfigError(f"{count} more of '{kind}' than <{kind}> in the conversation")


def _parts(value: str, role: str, media: dict[str, Iterator[Path]]) -> Iterator[dict[str, Any]]:
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


def _is_unicode(text: str) -> bool:
    """Whether the text can be written: JSON can escape half of a surrogate pair, which is no character."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _paths(data: dict[str, Any], kind: str, folder: Path) -> list[Path]:
    value = data.get(kind, [])
    paths = [value] if isinstance(value, str) else value or []  # null, as exports write it, is none
    if not isinstance(paths, list) or not all(isinstance(path, str) and path for path in paths):
        raise ConfigError(f"'{kind}' must be a path or a list of paths")
    return [folder / path for path in paths]


__all__ = ["BadRow", "Row", "read_rows", "scan_rows"]
