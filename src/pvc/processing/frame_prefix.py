"""Write the text before a video frame in the prompt: its time, its number, nothing, or a template.

Called by PVCProcessor.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from string import Formatter
from typing import Any

from pvc.errors import UsageError

# "index" is the text that InternVL was trained with.
FRAME_PREFIXES = {"timestamp": "{seconds:.1f}s: ", "index": "Frame{index}: ", "none": ""}
_MAX_LENGTH = 64  # characters; the prefix is repeated for every frame
_SPECS = {"index": re.compile(r"(0?[1-9])?d?"), "seconds": re.compile(r"((0?[1-9])?\.[0-6]f)?")}
_ALLOWED_HINT = (
    "use 'timestamp', 'index', 'none', or a template with {index} or {seconds}, such as '[{seconds:.2f}] ' or "
    "'Frame {index:02d}: '"
)

Piece = tuple[str, str | None, str]


def check_frame_prefix(value: Any, tokenizer: Any) -> None:
    """Check that `value` is a prefix that cannot become a control token.

    Args:
        value: "timestamp", "index", "none" or a template.
        tokenizer: has the tokens that must not appear.

    Raises:
        UsageError: another value, a template with other fields or formats, or one that contains a control token.
    """
    pieces = _parse(value) if isinstance(value, str) else None
    if pieces is None:
        raise _prefix_error(value, f"it must be a text, not a {type(value).__name__}")
    if value in FRAME_PREFIXES:
        return
    if not any(field for _, field, _ in pieces):
        raise _prefix_error(value, "it has neither {index} nor {seconds}")
    # A number in the place of a field must not complete a token such as <|reserved_1|>.
    text = _mask_numbers("".join(literal + ("0" if field else "") for literal, field, _ in pieces))
    for token in _list_control_tokens(tokenizer):
        if _mask_numbers(token) in text:
            raise _prefix_error(value, f"it would hold the control token {token[:40]!r}")


def write_frame_prefix(value: str, index: int, seconds: float) -> str:
    """Write the text before one frame.

    Args:
        value: a prefix that `check_frame_prefix` accepts.
        index: number of the frame in its video, from 1.
        seconds: time of the frame.
    """
    numbers = {"index": index, "seconds": seconds}
    return "".join(
        literal + (format(numbers[field], spec) if field is not None else "") for literal, field, spec in _parse(value)
    )


@lru_cache(maxsize=64)
def _parse(value: str) -> tuple[Piece, ...]:
    """Split a prefix into (literal, field or None, format)."""
    if len(value) > _MAX_LENGTH:
        raise _prefix_error(value, f"it has {len(value)} characters, and the limit is {_MAX_LENGTH}")
    if not value.replace("\n", "").isprintable():
        raise _prefix_error(value, "it has characters that cannot be printed")
    pieces: list[Piece] = []
    try:
        parts = list(Formatter().parse(FRAME_PREFIXES.get(value, value)))
    except ValueError as error:
        raise _prefix_error(value, str(error)) from None
    for literal, field, spec, conversion in parts:
        if field is not None and field not in _SPECS:
            raise _prefix_error(value, f"it has the field {field!r}")
        if field is not None and (conversion or not _SPECS[field].fullmatch(spec or "")):
            raise _prefix_error(value, f"{field!r} has the format {f'!{conversion}' if conversion else spec!r}")
        pieces.append((literal, field, spec or (".1f" if field == "seconds" else "")))
    return tuple(pieces)


def _list_control_tokens(tokenizer: Any) -> Iterable[str]:
    """Return all special tokens, and all added tokens except the runs of spaces that some tokenizers have."""
    added = {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special or str(token).strip()}
    return sorted({*added, *map(str, tokenizer.all_special_tokens)} - {""})


def _mask_numbers(text: str) -> str:
    """Replace the characters of which a formatted number may consist."""
    return re.sub(r"[0-9. ]+", "\0", text)


def _prefix_error(value: Any, reason: str) -> UsageError:
    return UsageError(f"frame_prefix is {str(value)[:80]!r}: {reason[:120]}; {_ALLOWED_HINT}")


__all__ = ["FRAME_PREFIXES", "check_frame_prefix", "write_frame_prefix"]
