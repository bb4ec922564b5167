"""Walks the boxes of an MP4 or MOV by the sizes that they declare, where FFmpeg's demuxer would walk them.

A box that reaches beyond its parent ends with it. A size of 0 means the rest of the parent, and 1 announces a size of
64 bits. If a size is smaller than its own header, the rest of the parent has no boxes. Leaves out what boxes contain.
Called by mp4.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO, NamedTuple


class Box(NamedTuple):
    """One box. `kind`: its four letters. `at`: where it begins. `start`, `end`: its content, as offsets in the file."""

    kind: bytes
    at: int
    start: int
    end: int


def read_boxes(file: BinaryIO, start: int, end: int) -> Iterator[Box]:
    """The boxes that lie between the offsets `start` and `end`, in order, without those inside them."""
    at = start
    while at + 8 <= end:
        file.seek(at)
        head = file.read(16)
        if len(head) < 8:
            return
        size, header = int.from_bytes(head[:4], "big"), 8
        if size == 1 and at + 16 <= end:
            size, header = int.from_bytes(head[8:16], "big"), 16
        elif size == 0:
            size = end - at
        if size < header:
            return
        stop = min(at + size, end)
        yield Box(head[4:8], at, at + header, stop)
        at = stop


__all__ = ["Box", "read_boxes"]
