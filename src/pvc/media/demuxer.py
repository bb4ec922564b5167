"""The view of an open file that FFmpeg reads: some box tags are hidden, and the size of the headers is bounded.

A local video has no limit on its bytes, but what a demuxer reads while it opens a file stays in memory: index tables,
attached fonts, covers. mp4.py decides which tags are hidden. Called by container.py.
"""

from __future__ import annotations

import io
from bisect import bisect_left
from collections.abc import Sequence

from pvc.errors import MediaError
from pvc.media.source import Source

MAX_HEADER_BYTES = 256 * 2**20
"""A day of video and sound in an MP4 has about 200 MB of tables."""

_HIDDEN_TAG = b"skip"  # a box that FFmpeg ignores


class DemuxerView:
    """As much of BinaryIO as FFmpeg uses.

    Args:
        source: the open file.
        stray_tags: file offsets of the four-letter tags to hide, sorted.
    """

    def __init__(self, source: Source, stray_tags: Sequence[int] = ()) -> None:
        self._file, self._name, self._stray_tags = source.file, source.name, stray_tags
        self._header_bytes_left: int | None = MAX_HEADER_BYTES

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move the file position; see `io.IOBase.seek`.

        Args:
            offset: bytes.
            whence: where `offset` counts from.
        """
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """Return the file position."""
        return self._file.tell()

    def read(self, count: int = -1) -> bytes:
        """Read the next bytes. Raise MediaError `too_many_bytes` if opening reads more than MAX_HEADER_BYTES."""
        offset = self._file.tell()
        data = self._file.read(count)
        if self._header_bytes_left is not None:
            self._header_bytes_left -= len(data)
            if self._header_bytes_left < 0:
                raise MediaError(
                    f"{self._name}: its headers have more than {MAX_HEADER_BYTES} bytes; write the video to a new file "
                    "without attachments",
                    code="too_many_bytes",
                )
        first = bisect_left(self._stray_tags, offset - len(_HIDDEN_TAG) + 1)
        last = bisect_left(self._stray_tags, offset + len(data))
        return self._hide_tags(data, [tag - offset for tag in self._stray_tags[first:last]]) if first < last else data

    def finish_headers(self) -> None:
        """Stop counting bytes: from here on they are packets, which do not stay in memory."""
        self._header_bytes_left = None

    @staticmethod
    def _hide_tags(data: bytes, offsets: Sequence[int]) -> bytes:
        result = bytearray(data)
        for start in offsets:
            for position, letter in enumerate(_HIDDEN_TAG, start):
                if 0 <= position < len(result):
                    result[position] = letter
        return bytes(result)


__all__ = ["MAX_HEADER_BYTES", "DemuxerView"]
