"""What FFmpeg sees of an open file: some tags of boxes are hidden from it, and its headers are bounded.

A local video has no limit on its bytes, but what a demuxer reads while it opens a file stays in memory: index tables,
attached fonts, covers. Leaves out which tags are hidden (mp4.py). Called by container.py.
"""

from __future__ import annotations

import io
from bisect import bisect_left
from collections.abc import Sequence

from pvc.errors import MediaError
from pvc.media.source import Source

MAX_HEADER_BYTES = 256 * 2**20
"""A day of video and sound in an MP4 has about 200 MB of tables."""

_HIDDEN = b"skip"  # a box that FFmpeg passes over


class DemuxerView:
    """As much of a BinaryIO as FFmpeg uses. `stray`: where the hidden tags of four letters begin, sorted."""

    def __init__(self, source: Source, stray: Sequence[int] = ()) -> None:
        self._file, self._name, self._stray = source.file, source.name, stray
        self._left: int | None = MAX_HEADER_BYTES

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def read(self, count: int = -1) -> bytes:
        """The next bytes. Raises MediaError `too_many_bytes` if opening reads more than MAX_HEADER_BYTES."""
        at = self._file.tell()
        data = self._file.read(count)
        if self._left is not None:
            self._left -= len(data)
            if self._left < 0:
                raise MediaError(
                    f"{self._name}: its headers have more than {MAX_HEADER_BYTES} bytes; write the video to a new file "
                    "without attachments",
                    code="too_many_bytes",
                )
        first = bisect_left(self._stray, at - len(_HIDDEN) + 1)
        last = bisect_left(self._stray, at + len(data))
        return self._hidden(data, [offset - at for offset in self._stray[first:last]]) if first < last else data

    def end_of_headers(self) -> None:
        """From here on the bytes are those of packets, which do not stay in memory."""
        self._left = None

    @staticmethod
    def _hidden(data: bytes, places: Sequence[int]) -> bytes:
        changed = bytearray(data)
        for start in places:
            for place, letter in enumerate(_HIDDEN, start):
                if 0 <= place < len(changed):
                    changed[place] = letter
        return bytes(changed)


__all__ = ["MAX_HEADER_BYTES", "DemuxerView"]
