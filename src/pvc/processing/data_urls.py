"""Decode media that are passed as text: `data:` URLs and base64. Nothing is fetched.

Called for chat messages, and by the image and video processors.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import Any
from urllib.parse import unquote_to_bytes

from pvc import media
from pvc.errors import MediaError, UsageError

_DATA = re.compile(r"data:[^,;]*(?:;[^,;]*)*,", re.IGNORECASE)
_SPACE = {ord(character): None for character in " \t\r\n"}


def read_data_url(source: Any) -> Any:
    """Decode a `data:` URL to bytes; any other value is returned unchanged.

    Raises:
        UsageError: the URL or its base64 is malformed.
        MediaError: more bytes than a picture or video may have.
    """
    if not isinstance(source, str) or source[:5].lower() != "data:":
        return source
    head = _DATA.match(source)
    if head is None:
        raise UsageError(f"{source[:40]!r} is not a data: address; it needs a comma before its data")
    payload = source[head.end() :]
    if head[0][:-1].lower().endswith(";base64"):
        return decode_base64(payload, "the base64 of a data: address")
    return unquote_to_bytes(payload)


def decode_base64(text: Any, what: str) -> bytes:
    """Decode base64, with or without padding, line breaks and a `data:` head.

    Args:
        text: a string.
        what: name of the value in error messages.

    Raises:
        UsageError: malformed base64.
        MediaError: more bytes than a picture or video may have.
    """
    if not isinstance(text, str):
        raise UsageError(f"{what} must be a string, not a {type(text).__name__}")
    if text[:5].lower() == "data:":
        return read_data_url(text)
    limit = media.DEFAULT_LIMITS.max_bytes
    if len(text) // 4 * 3 > 2 * limit:
        raise MediaError(f"{what}: {len(text)} characters of base64; the limit is {limit} bytes", code="too_many_bytes")
    plain = text.translate(_SPACE)
    try:
        return base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise UsageError(f"{what} is malformed: {error}") from error


__all__ = ["decode_base64", "read_data_url"]
