"""Open a path or bytes for reading, and nothing else: no URL, directory, device or pipe.

Bytes in memory and picture files are read whole and have a byte limit. Video files have none. Called by the loaders
and `probe`. All their error messages start with the name that is built here, which is one printable line.
"""

from __future__ import annotations

import io
import os
import re
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, BinaryIO, TypeAlias, cast

from pvc.errors import ForbiddenError, MediaError, UsageError
from pvc.media.limits import Limits
from pvc.media.sniff import HEAD_BYTES, READABLE, Format, sniff

FileSource: TypeAlias = "str | os.PathLike[str] | bytes | bytearray | memoryview | Source"

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://|(?:data|file):", re.IGNORECASE)
_MAX_NAME_LENGTH = 300

_KINDS = (
    (stat.S_ISDIR, "a directory"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISSOCK, "a socket"),
)


@dataclass(frozen=True)
class Source:
    """An open file, or bytes in memory.

    Attributes:
        file: seekable binary file.
        name: printable name for error messages.
        size: bytes.
        headers: results of header readers by format, each read once; all views of a source share them.
    """

    file: BinaryIO
    name: str
    size: int
    headers: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @cached_property
    def format(self) -> Format:
        """Detect the format from the first bytes, once. Raise MediaError `unsupported_format`."""
        self.file.seek(0)
        media_format = sniff(self.file.read(HEAD_BYTES))
        if media_format is None:
            raise MediaError(f"{self.name}: unknown format; {READABLE}", code="unsupported_format")
        return media_format


class _View:
    """A file position that is independent of other readers of the same file.

    It has as much of BinaryIO as the readers here use.
    """

    def __init__(self, file: BinaryIO, size: int, lock: threading.Lock) -> None:
        self._file, self._size, self._lock, self._offset = file, size, lock, 0

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._offset = max(0, offset + (0, self._offset, self._size)[whence])
        return self._offset

    def tell(self) -> int:
        return self._offset

    def read(self, count: int = -1) -> bytes:
        with self._lock:
            self._file.seek(self._offset)
            data = self._file.read(count)
        self._offset += len(data)
        return data


def open_views(source: Source, count: int) -> list[Source]:
    """Open several views of one source, one for each thread. Do not use `source` while they are in use.

    Args:
        source: an open source.
        count: number of views.
    """
    lock = threading.Lock()
    views = (cast(BinaryIO, _View(source.file, source.size, lock)) for _ in range(count))
    return [Source(view, source.name, source.size, source.headers) for view in views]


def to_printable_name(text: str) -> str:
    """Return `text` as one printable line of at most 300 characters; controls and lone surrogates are escaped."""
    if len(text) > _MAX_NAME_LENGTH:
        half = _MAX_NAME_LENGTH // 2
        text = f"{text[: half - 3]}...{text[-half:]}"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def is_file_source(source: object) -> bool:
    """Return whether `open_source` accepts `source`: a path, bytes or an open Source, but no pixels in memory."""
    return isinstance(source, (str, bytes, bytearray, memoryview, os.PathLike, Source))


@contextmanager
def open_source(source: FileSource, limits: Limits) -> Iterator[Source]:
    """Open a path or bytes for reading. The file is closed at the end, also that of a Source which is passed.

    Args:
        source: str, PathLike, bytes, bytearray, memoryview, or a Source of an open file.
        limits: `max_bytes` bounds what is read whole.

    Raises:
        ForbiddenError: a URL, a file without read permission, or not a regular file.
        MediaError: `not_found`, `empty_media`, `too_many_bytes`; `corrupt_media` if reading fails while the file is in
            use.
        UsageError: any other type.
    """
    if isinstance(source, (bytes, bytearray, memoryview)):
        data = bytes(source)
        media_file = Source(io.BytesIO(data), f"<{len(data)} bytes>", len(data))
    elif isinstance(source, Source):
        media_file = source
    elif isinstance(source, (str, os.PathLike)):
        if isinstance(source, str) and _URL.match(source):
            raise ForbiddenError(f"{to_printable_name(source)}: URLs are not fetched; download the file first")
        media_file = _open_path(os.fsdecode(source))
    else:
        raise UsageError(f"cannot read media from a {type(source).__name__}: give a path or bytes")
    with media_file.file:
        if media_file.size == 0:
            raise MediaError(f"{media_file.name}: the file is empty", code="empty_media")
        _check_bytes(media_file, limits)
        try:
            yield media_file
        except OSError as error:
            raise MediaError(f"{media_file.name}: reading failed: {error.strerror or error}") from error


def _check_bytes(source: Source, limits: Limits) -> None:
    """Raise MediaError `too_many_bytes` if a medium that is read whole is too large."""
    if source.size <= limits.max_bytes:
        return
    in_memory = isinstance(source.file, io.BytesIO)
    if in_memory or source.format.kind == "image":
        advice = "give a video as a path, which has no limit" if in_memory else "save it with fewer bytes"
        raise MediaError(
            f"{source.name}: {source.size} bytes; the limit is {limits.max_bytes}; {advice}", code="too_many_bytes"
        )


def _open_path(path: str) -> Source:
    name = to_printable_name(path)
    try:
        # Check before opening, because opening a device can have an effect.
        _require_regular(os.stat(path).st_mode, name)
        flags = os.O_RDONLY
        for extra in ("O_NONBLOCK", "O_NOCTTY", "O_CLOEXEC", "O_BINARY"):
            flags |= getattr(os, extra, 0)
        # Non-blocking: if a pipe has replaced the file by now, opening would wait for a writer.
        descriptor = os.open(path, flags)
    except PermissionError as error:
        raise ForbiddenError(f"{name}: permission denied") from error
    except OSError as error:
        raise MediaError(f"{name}: {error.strerror or error}", code="not_found") from error
    except ValueError as error:  # a NUL, or characters that a file name cannot have here
        raise MediaError(f"{name}: no such file", code="not_found") from error
    try:
        status = os.fstat(descriptor)
        _require_regular(status.st_mode, name)
    except BaseException:
        os.close(descriptor)
        raise
    return Source(os.fdopen(descriptor, "rb"), name, status.st_size)


def _require_regular(mode: int, name: str) -> None:
    if stat.S_ISREG(mode):
        return
    kind = next((text for test, text in _KINDS if test(mode)), "not a regular file")
    raise ForbiddenError(f"{name}: this is {kind}, not a file")
