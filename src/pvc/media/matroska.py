"""Read from the header of a Matroska file whether a video track is displayed rotated by a quarter turn.

FFmpeg reports the rotation of decoded frames only, but here the header must be read without decoding. Called by
container.py.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import BinaryIO

_SEGMENT, _TRACKS, _TRACK = 0x18538067, 0x1654AE6B, 0xAE
_TYPE, _CODEC, _VIDEO, _PROJECTION = 0x83, 0x86, 0xE0, 0x7670
_YAW, _PITCH, _ROLL = 0x7673, 0x7674, 0x7675
_MAX_ELEMENTS = 100_000  # before the tracks; a file of many hours has some thousand clusters

_Element = tuple[int, int, int]  # id, beginning and end of the content


def is_sideways(file: BinaryIO, size: int, video_index: int) -> bool:
    """Return whether a video track is rotated by a quarter turn; False if unknown.

    Args:
        file: a seekable Matroska file.
        size: bytes of the file.
        video_index: number of the track among the video tracks, from 0.
    """
    for segment in _iter_children(file, 0, size, _SEGMENT):
        for tracks in _iter_children(file, *segment, _TRACKS):
            videos = [video for track in _iter_children(file, *tracks, _TRACK) if (video := _find_video(file, *track))]
            return video_index < len(videos) and _is_rotated(file, *videos[video_index])
    return False


def _iter_children(file: BinaryIO, start: int, end: int, element_id: int) -> Iterator[tuple[int, int]]:
    return ((begin, stop) for kind, begin, stop in _iter_elements(file, start, end) if kind == element_id)


def _iter_elements(file: BinaryIO, start: int, end: int) -> Iterator[_Element]:
    """Iterate over the elements between two offsets, without those inside them."""
    for _ in range(_MAX_ELEMENTS):
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


def _find_video(file: BinaryIO, start: int, end: int) -> tuple[int, int] | None:
    """Return the offsets of the video settings of a track that FFmpeg counts as video: it has type 1 and a codec."""
    children = {kind: (begin, stop) for kind, begin, stop in _iter_elements(file, start, end)}
    if _TYPE not in children or _CODEC not in children or _read_content(file, *children[_TYPE])[-1:] != b"\1":
        return None
    return children.get(_VIDEO, (end, end))


def _is_rotated(file: BinaryIO, start: int, end: int) -> bool:
    """Interpret a projection as FFmpeg does: a roll, after which a yaw of half a turn mirrors; others are ignored."""
    pose = {_YAW: 0.0, _PITCH: 0.0, _ROLL: 0.0}
    for projection in _iter_children(file, start, end, _PROJECTION):
        for kind, begin, stop in _iter_elements(file, *projection):
            data = _read_content(file, begin, stop)
            if kind in pose and len(data) in (4, 8):
                pose[kind] = struct.unpack(">f" if len(data) == 4 else ">d", data)[0]
    return pose[_PITCH] == 0 and pose[_YAW] in (0, 180, -180) and 45 < abs(pose[_ROLL]) % 180 < 135


def _read_content(file: BinaryIO, start: int, end: int) -> bytes:
    file.seek(start)
    return file.read(min(8, end - start))


__all__ = ["is_sideways"]
