"""Reads from the header of a Matroska file whether a video track is shown on its side.

FFmpeg gives the rotation to decoded frames alone, and a header has to be read without decoding. Leaves out everything
else of a header. Called by container.py.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import BinaryIO

_SEGMENT, _TRACKS, _TRACK = 0x18538067, 0x1654AE6B, 0xAE
_TYPE, _CODEC, _VIDEO, _PROJECTION = 0x83, 0x86, 0xE0, 0x7670
_YAW, _PITCH, _ROLL = 0x7673, 0x7674, 0x7675
_MOST_ELEMENTS = 100_000  # looked at before the tracks; a file of many hours has some thousand clusters

_Element = tuple[int, int, int]  # id, beginning and end of the content


def is_sideways(file: BinaryIO, size: int, number: int) -> bool:
    """Whether the video track `number` (from 0) of a file of `size` bytes is turned by a quarter; False if unknown."""
    for segment in _children(file, 0, size, _SEGMENT):
        for tracks in _children(file, *segment, _TRACKS):
            videos = [video for track in _children(file, *tracks, _TRACK) if (video := _video(file, *track))]
            return number < len(videos) and _is_turned(file, *videos[number])
    return False


def _children(file: BinaryIO, start: int, end: int, wanted: int) -> Iterator[tuple[int, int]]:
    return ((begin, stop) for kind, begin, stop in _elements(file, start, end) if kind == wanted)


def _elements(file: BinaryIO, start: int, end: int) -> Iterator[_Element]:
    """The elements between two offsets, without those inside them."""
    for _ in range(_MOST_ELEMENTS):
        file.seek(start)
        head = file.read(12)
        id_length = 9 - head[0].bit_length() if head else 9
        if start >= end or id_length > 4 or len(head) <= id_length:
            return
        length = 9 - head[id_length].bit_length()
        digits = head[id_length : id_length + length]
        if length > 8 or len(digits) < length:
            return
        size = int.from_bytes(digits, "big") - (1 << 7 * length)
        content = start + id_length + length
        unknown = size == (1 << 7 * length) - 1
        stop = end if unknown else min(content + size, end)
        yield int.from_bytes(head[:id_length], "big"), content, stop
        start = stop


def _video(file: BinaryIO, start: int, end: int) -> tuple[int, int] | None:
    """The video settings of a track that FFmpeg takes for one: it needs the type 1 and a codec."""
    found = {kind: (begin, stop) for kind, begin, stop in _elements(file, start, end)}
    if _TYPE not in found or _CODEC not in found or _content(file, *found[_TYPE])[-1:] != b"\1":
        return None
    return found.get(_VIDEO, (end, end))


def _is_turned(file: BinaryIO, start: int, end: int) -> bool:
    """As FFmpeg reads a projection: a roll, after which a yaw of half a turn mirrors; other poses are ignored."""
    pose = {_YAW: 0.0, _PITCH: 0.0, _ROLL: 0.0}
    for projection in _children(file, start, end, _PROJECTION):
        for kind, begin, stop in _elements(file, *projection):
            data = _content(file, begin, stop)
            if kind in pose and len(data) in (4, 8):
                pose[kind] = struct.unpack(">f" if len(data) == 4 else ">d", data)[0]
    return pose[_PITCH] == 0 and pose[_YAW] in (0, 180, -180) and 45 < abs(pose[_ROLL]) % 180 < 135


def _content(file: BinaryIO, start: int, end: int) -> bytes:
    file.seek(start)
    return file.read(min(8, end - start))


__all__ = ["is_sideways"]
