"""Where a decoder may enter a stream, and which pictures no other one needs: read from the packets themselves.

The key flags of a container are declarations, and open to error and lies; a picture is a way in only if its own
header says that it and what follows need nothing earlier. Leaves out every decision (decode_plan.py) and all decoding.
Codecs that are not here (MPEG-4 part 2, H.263, Theora, FFV1) are always decoded from the start.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from itertools import islice
from typing import TypeAlias

_Bytes: TypeAlias = "bytes | memoryview"

MOST_UNITS, MOST_UNITS_IN_ALL = 4096, 4_000_000
"""NAL units looked at in one packet and in a stream: a picture is cut into some hundreds at most, and mostly is one."""

_MOST_OBUS = 16  # before the first frame header of an AV1 packet
_MOST_SEGMENTS = 64  # before the scan of a JPEG picture


class RandomAccess(IntEnum):
    """CLOSED: nothing from here on needs anything before. OPEN: that holds for what is shown from here on only."""

    NONE = 0
    CLOSED = 1
    OPEN = 2


@dataclass(frozen=True, slots=True)
class PacketMark:
    """What one packet is. `spare`: no other picture refers to it. `headers`: its parameter sets, b"" without any."""

    entry: RandomAccess = RandomAccess.NONE
    spare: bool = False
    headers: bytes = b""


PLAIN, CLOSED, OPEN, SPARE = (
    PacketMark(),
    PacketMark(RandomAccess.CLOSED),
    PacketMark(RandomAccess.OPEN),
    PacketMark(spare=True),
)

Reader: TypeAlias = Callable[[memoryview], "PacketMark | None"]
"""Packet to mark; None when the packet is not built as it should be."""


def reader_for(codec: str, extradata: bytes | None) -> Reader | None:
    """The Reader for FFmpeg's name of a codec and a stream's extradata; None for codecs without one."""
    extra = extradata or b""
    if codec == "h264":
        # avcC begins with its version, 1; start codes begin with zeros. So for hvcC.
        split = _bounded(_prefixed(extra[4] & 3) if len(extra) > 6 and extra[0] == 1 else _start_codes)
        return lambda packet: _h264(split(packet))
    if codec == "hevc":
        split = _bounded(_prefixed(extra[21] & 3) if len(extra) > 22 and extra[:2] != b"\0\0" else _start_codes)
        return lambda packet: _hevc(split(packet))
    return _READERS.get(codec)


_Splitter: TypeAlias = "Callable[[memoryview], list[_Bytes] | None]"


def _bounded(split: _Splitter) -> _Splitter:
    """`split` until the units of a stream add up to more than any sensible one has."""
    left = MOST_UNITS_IN_ALL

    def bounded(packet: memoryview) -> list[_Bytes] | None:
        nonlocal left
        units = split(packet) if left >= 0 else None
        left -= len(units or ())
        return units if left >= 0 else None

    return bounded


def _prefixed(size_minus_one: int) -> _Splitter:
    size = size_minus_one + 1

    def split(packet: memoryview) -> list[_Bytes] | None:
        units: list[_Bytes] = []
        at, end = 0, len(packet)
        while at < end:
            start = at + size
            at = start + int.from_bytes(packet[at:start], "big")
            if not start < at <= end or len(units) == MOST_UNITS:
                return None
            units.append(packet[start:at])
        return units

    return split


def _start_codes(packet: memoryview) -> list[_Bytes] | None:
    data = bytes(packet)
    at = data.find(b"\0\0\1")
    units: list[_Bytes] = []
    while at >= 0:
        end = data.find(b"\0\0\1", at + 3)
        unit = data[at + 3 : end if end >= 0 else len(data)].rstrip(b"\0")
        if not unit or len(units) == MOST_UNITS:
            return None
        units.append(unit)
        at = end
    return units


def _h264(units: list[_Bytes] | None) -> PacketMark | None:
    """H.264, table 7-1: 1 slice, 5 slice of an IDR picture, 7 and 8 parameter sets, 9 delimiter, 12 filler."""
    if not units:
        return None
    instant = spare = True
    slices = False
    headers: list[bytes] = []
    for unit in units:
        kind = unit[0] & 31
        if kind <= 5:
            slices = True
            instant = instant and kind == 5
            spare = spare and kind == 1 and not unit[0] & 0x60  # nal_ref_idc
        elif kind in (7, 8):
            headers.append(bytes(unit))
        elif kind not in (9, 12):
            spare = False  # messages (SEI) may concern later pictures too
    if headers:
        return PacketMark(
            RandomAccess.CLOSED if instant and slices else RandomAccess.NONE, False, b"\0\0\1".join(headers)
        )
    if not slices:
        return PLAIN
    return CLOSED if instant else SPARE if spare else PLAIN


def _hevc(units: list[_Bytes] | None) -> PacketMark | None:
    """H.265, table 7-1: below 32 slices, 19 and 20 IDR, 21 CRA; 32 to 34 parameter sets.

    Pictures that follow a CRA and are shown before it may need earlier ones. None is marked as spare: a picture
    that its own temporal layer does not need may be needed by a higher one.
    """
    if not units:
        return None
    kinds = {(unit[0] >> 1) & 63 for unit in units}
    slices = {kind for kind in kinds if kind < 32}
    entry = RandomAccess.NONE
    if slices and slices <= {19, 20}:
        entry = RandomAccess.CLOSED
    elif slices == {21}:
        entry = RandomAccess.OPEN
    headers = [bytes(unit) for unit in units if 32 <= (unit[0] >> 1) & 63 <= 34]
    return PacketMark(entry, False, b"\0\0\1".join(headers))


def _vp8(packet: memoryview) -> PacketMark:
    """RFC 6386, 9.1: the lowest bit is 0 in key frames."""
    return PLAIN if packet[0] & 1 else CLOSED


def _vp9(packet: memoryview) -> PacketMark | None:
    """VP9 bitstream, 6.2: marker (2 bits), profile (2, in profile 3 and one more), show_existing_frame, frame_type."""
    first = packet[0]
    if first >> 6 != 2:
        return None
    bits = first & 3 if first & 0x30 == 0x30 else first >> 2 & 3
    return CLOSED if bits == 0 else PLAIN


def _av1(packet: memoryview) -> PacketMark | None:
    """AV1, 5.3 and 5.9: a sequence header, then a key frame that is shown, is where decoding can begin."""
    at, sequence = 0, False
    for _ in range(_MOST_OBUS):
        if at >= len(packet):
            return PLAIN
        kind, extended, sized = packet[at] >> 3 & 15, packet[at] >> 2 & 1, packet[at] >> 1 & 1
        at += 1 + extended
        size, read = _leb128(packet, at) if sized else (len(packet) - at, 0)
        at += read
        if size < 0 or at + size > len(packet):
            return None
        if kind == 1:
            # A still picture's header has another form and needs no seeking.
            sequence = size > 0 and not packet[at] & 0x08
        elif kind in (3, 6) and size:
            # show_existing_frame 0, frame_type 00, show_frame 1
            return CLOSED if sequence and packet[at] >> 4 == 1 else PLAIN
        at += size
    return None


def _leb128(packet: memoryview, at: int) -> tuple[int, int]:
    """(value, bytes read); the value is -1 when it does not end."""
    value = 0
    for count, byte in enumerate(islice(packet[at : at + 8], 8)):
        value |= (byte & 127) << 7 * count
        if not byte & 128:
            return value, count + 1
    return -1, 0


def _mpeg12(packet: memoryview) -> PacketMark:
    """MPEG-2, 6.2: a sequence header (B3), which sets all tables anew, then an I picture (00); B pictures are spare."""
    data = bytes(packet)
    sequence, picture = data.find(b"\0\0\1\xb3"), data.find(b"\0\0\1\0")
    kind = data[picture + 5] >> 3 & 7 if 0 <= picture < len(data) - 5 else 0
    if kind == 3:
        return SPARE if sequence < 0 else PLAIN
    return OPEN if kind == 1 and 0 <= sequence < picture else PLAIN


def _mjpeg(packet: memoryview) -> PacketMark:
    """A JPEG picture stands alone if it brings its quantisation (DB) and Huffman (C4) tables."""
    markers = set(islice(_jpeg_markers(packet), _MOST_SEGMENTS))
    return CLOSED if {0xDB, 0xC4} <= markers else PLAIN


def _jpeg_markers(packet: memoryview) -> Iterator[int]:
    """The segments between the beginning of a picture and its scan."""
    at = 2
    while packet[:2] == b"\xff\xd8" and at + 4 <= len(packet) and packet[at] == 0xFF and packet[at + 1] != 0xDA:
        yield packet[at + 1]
        at += 2 + max(2, int.from_bytes(packet[at + 2 : at + 4], "big"))


def _alone(packet: memoryview) -> PacketMark:
    """Codecs of cameras and editors, in which every picture stands alone."""
    return CLOSED


_READERS: dict[str, Reader] = {
    "av1": _av1,
    "dnxhd": _alone,
    "mjpeg": _mjpeg,
    "mpeg1video": _mpeg12,
    "mpeg2video": _mpeg12,
    "prores": _alone,
    "vp8": _vp8,
    "vp9": _vp9,
}
