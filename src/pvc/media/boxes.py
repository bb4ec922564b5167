"""Iterate over the boxes of an MP4 or MOV by their declared sizes, at the places where FFmpeg's demuxer finds them.

If a box reaches beyond its parent, it ends with the parent. A size of 0 means the rest of the parent; 1 announces a
size of 64 bits. If a size is smaller than the header of the box, the rest of the parent has no boxes. Called by mp4.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO, NamedTuple


class Box(NamedTuple):
    """One box of an MP4. All positions are offsets in the file.

    Attributes:
        kind: its tag of four letters.
        offset: where its header begins.
        start: where its content begins.
        end: where its content ends.
    """

    kind: bytes
    offset: int
    start: int
    end: int


def read_boxes(file: BinaryIO, start: int, end: int) -> Iterator[Box]:
    """Iterate over the boxes between two offsets, in order, without those inside them.

    Args:
        file: a seekable file.
        start: offset of the first box.
        end: offset at which the last box ends.
    """
    offset = start
    while offset + 8 <= end:
        file.seek(offset)
        head = file.read(16)
        if len(head) < 8:
            return
        size, header = int.from_bytes(head[:4], "big"), 8
        if size == 1 and offset + 16 <= end:
            size, header = int.from_bytes(head[8:16], "big"), 16
        elif size == 0:
            size = end - offset
        if size < header:
            return
        stop = min(offset + size, end)
        yield Box(head[4:8], offset, offset + header, stop)
        offset = stop


__all__ = ["Box", "read_boxes"]
