"""Opens what a caller names as a picture or a video: a path or bytes.

Never an address, a directory, a device or a pipe. Bytes in memory and pictures, which Pillow reads whole, have a byte
limit; videos in files have none. Leaves the contents to the others. Called by the loaders and `probe`; the texts of
all their errors start with the name made here, which is one line whatever the caller passed.
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

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://|(?:data|file):", re.IGNORECASE)
_LONGEST_NAME = 300

_KINDS = (
    (stat.S_ISDIR, "a directory"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISSOCK, "a socket"),
)


@dataclass(frozen=True)
class Source:
    """An open file or bytes in memory: `file` is seekable, `size` is in bytes, `name` is for people.

    `headers`: what readers found in it once, by format; all views of a source share it.
    """

    file: BinaryIO
    name: str
    size: int
    headers: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @cached_property
    def format(self) -> Format:
        """The format from the first bytes, read once. Raises MediaError `unsupported_format`."""
        self.file.seek(0)
        found = sniff(self.file.read(HEAD_BYTES))
        if found is None:
            raise MediaError(f"{self.name}: unknown format; {READABLE}", code="unsupported_format")
        return found


class _View:
    """A position of its own in a file that others read at the same time: as much of a BinaryIO as readers here use."""

    def __init__(self, file: BinaryIO, size: int, lock: threading.Lock) -> None:
        self._file, self._size, self._lock, self._at = file, size, lock, 0

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = max(0, offset + (0, self._at, self._size)[whence])
        return self._at

    def tell(self) -> int:
        return self._at

    def read(self, count: int = -1) -> bytes:
        with self._lock:
            self._file.seek(self._at)
            data = self._file.read(count)
        self._at += len(data)
        return data


def shared(source: Source, count: int) -> list[Source]:
    """`count` views of one open source, each for a thread of its own; `source` itself must rest meanwhile."""
    lock = threading.Lock()
    views = (cast(BinaryIO, _View(source.file, source.size, lock)) for _ in range(count))
    return [Source(view, source.name, source.size, source.headers) for view in views]


def readable_name(text: str) -> str:
    """`text` as one printable line of at most 300 characters: controls and lone surrogates are escaped."""
    if len(text) > _LONGEST_NAME:
        half = _LONGEST_NAME // 2
        text = f"{text[: half - 3]}...{text[-half:]}"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def is_file_source(source: object) -> bool:
    """Whether `open_source` takes it: a path, bytes or an open Source, as against pictures and arrays in memory."""
    return isinstance(source, (str, bytes, bytearray, memoryview, os.PathLike, Source))


@contextmanager
def open_source(source: FileSource, limits: Limits) -> Iterator[Source]:
    """Open a path (str or PathLike) or bytes for reading; a Source of an open file is closed at the end like these.

    Raises ForbiddenError for addresses and for what is not a regular file, MediaError `not_found`,
    `empty_media`, `too_many_bytes`, and `corrupt_media` when the disk fails while the file is in use;
    UsageError for any other type.
    """
    if isinstance(source, (bytes, bytearray, memoryview)):
        data = bytes(source)
        opened = Source(io.BytesIO(data), f"<{len(data)} bytes>", len(data))
    elif isinstance(source, Source):
        opened = source
    elif isinstance(source, (str, os.PathLike)):
        if isinstance(source, str) and _ADDRESS.match(source):
            raise ForbiddenError(f"{readable_name(source)}: URLs are not fetched; download the file first")
        opened = _open_path(os.fsdecode(source))
    else:
        raise UsageError(f"cannot read media from a {type(source).__name__}: give a path or bytes")
    with opened.file:
        if opened.size == 0:
            raise MediaError(f"{opened.name}: the file is empty", code="empty_media")
        _check_bytes(opened, limits)
        try:
            yield opened
        except OSError as error:
            raise MediaError(f"{opened.name}: reading failed: {error.strerror or error}") from error


def _check_bytes(source: Source, limits: Limits) -> None:
    """Raise MediaError `too_many_bytes` for what is read whole."""
    if source.size <= limits.max_bytes:
        return
    in_memory = isinstance(source.file, io.BytesIO)
    if in_memory or source.format.kind == "image":
        advice = "give a video as a path, which has no limit" if in_memory else "save it with fewer bytes"
        raise MediaError(
            f"{source.name}: {source.size} bytes; the limit is {limits.max_bytes}; {advice}", code="too_many_bytes"
        )


def _open_path(path: str) -> Source:
    name = readable_name(path)
    try:
        # Looked at before opening, because opening alone can have an effect on a device.
        _require_regular(os.stat(path).st_mode, name)
        flags = os.O_RDONLY
        for extra in ("O_NONBLOCK", "O_NOCTTY", "O_CLOEXEC", "O_BINARY"):
            flags |= getattr(os, extra, 0)
        # Non-blocking, since a pipe may have taken the file's place by now and would wait for a writer.
        descriptor = os.open(path, flags)
    except PermissionError as error:
        raise ForbiddenError(f"{name}: permission denied") from error
    except OSError as error:
        raise MediaError(f"{name}: {error.strerror or error}", code="not_found") from error
    except ValueError as error:  # a NUL, or characters that no file name can have here
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
