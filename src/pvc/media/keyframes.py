"""Find random access points and non-reference frames from the packets themselves.

The keyframe flags of a container are declarations and may be wrong. A packet is a random access point only if its
header says that it and what follows need nothing earlier. Codecs that are not listed here (MPEG-4 part 2, H.263,
Theora, FFV1) are always decoded from the start. Called by decode_plan.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from itertools import islice
from typing import TypeAlias

_Bytes: TypeAlias = "bytes | memoryview"

MAX_NAL_UNITS, MAX_STREAM_NAL_UNITS = 4096, 4_000_000
"""Maximum of NAL units in one packet and in a stream; a frame has some hundreds at most, and usually one."""

_MAX_OBUS = 16  # before the first frame header of an AV1 packet
_MAX_JPEG_SEGMENTS = 64  # before the scan of a JPEG picture


class RandomAccess(IntEnum):
    """Whether decoding can begin at a packet.

    CLOSED: nothing from here on needs an earlier packet (IDR, closed GOP).
    OPEN: only frames displayed before this one may need earlier packets (CRA, open GOP).
    """

    NONE = 0
    CLOSED = 1
    OPEN = 2


@dataclass(frozen=True, slots=True)
class PacketInfo:
    """Properties of one packet.

    Attributes:
        random_access: whether decoding can begin here.
        is_non_reference: whether no other frame refers to this one.
        parameter_sets: its parameter sets, b"" if there are none.
    """

    random_access: RandomAccess = RandomAccess.NONE
    is_non_reference: bool = False
    parameter_sets: bytes = b""


PLAIN, CLOSED, OPEN, NON_REFERENCE = (
    PacketInfo(),
    PacketInfo(RandomAccess.CLOSED),
    PacketInfo(RandomAccess.OPEN),
    PacketInfo(is_non_reference=True),
)

PacketParser: TypeAlias = Callable[[memoryview], "PacketInfo | None"]
"""Parses a packet; None if the packet is malformed."""


def get_packet_parser(codec: str, extradata: bytes | None) -> PacketParser | None:
    """Return the parser for the packets of a codec, None for codecs without one.

    Args:
        codec: FFmpeg's name of the codec.
        extradata: extradata of the stream.
    """
    extra = extradata or b""
    if codec == "h264":
        # avcC begins with its version, 1; start codes begin with zeros. The same holds for hvcC.
        split = _limit_units(
            _split_length_prefixed(extra[4] & 3) if len(extra) > 6 and extra[0] == 1 else _split_start_codes
        )
        return lambda packet: _parse_h264(split(packet))
    if codec == "hevc":
        split = _limit_units(
            _split_length_prefixed(extra[21] & 3) if len(extra) > 22 and extra[:2] != b"\0\0" else _split_start_codes
        )
        return lambda packet: _parse_hevc(split(packet))
    return _PARSERS.get(codec)


_Splitter: TypeAlias = "Callable[[memoryview], list[_Bytes] | None]"


def _limit_units(split: _Splitter) -> _Splitter:
    """Wrap `split` so that it fails once a stream has more NAL units than any sensible one."""
    remaining = MAX_STREAM_NAL_UNITS

    def split_limited(packet: memoryview) -> list[_Bytes] | None:
        nonlocal remaining
        units = split(packet) if remaining >= 0 else None
        remaining -= len(units or ())
        return units if remaining >= 0 else None

    return split_limited


def _split_length_prefixed(size_minus_one: int) -> _Splitter:
    size = size_minus_one + 1

    def split(packet: memoryview) -> list[_Bytes] | None:
        units: list[_Bytes] = []
        offset, end = 0, len(packet)
        while offset < end:
            start = offset + size
            offset = start + int.from_bytes(packet[offset:start], "big")
            if not start < offset <= end or len(units) == MAX_NAL_UNITS:
                return None
            units.append(packet[start:offset])
        return units

    return split


def _split_start_codes(packet: memoryview) -> list[_Bytes] | None:
    data = bytes(packet)
    offset = data.find(b"\0\0\1")
    units: list[_Bytes] = []
    while offset >= 0:
        end = data.find(b"\0\0\1", offset + 3)
        unit = data[offset + 3 : end if end >= 0 else len(data)].rstrip(b"\0")
        if not unit or len(units) == MAX_NAL_UNITS:
            return None
        units.append(unit)
        offset = end
    return units


def _parse_h264(units: list[_Bytes] | None) -> PacketInfo | None:
    """Parse an H.264 packet, table 7-1.

    Types: 1 slice, 5 slice of an IDR picture, 7 and 8 parameter sets, 9 delimiter, 12 filler.
    """
    if not units:
        return None
    is_idr = is_non_reference = True
    has_slices = False
    parameter_sets: list[bytes] = []
    for unit in units:
        kind = unit[0] & 31
        if kind <= 5:
            has_slices = True
            is_idr = is_idr and kind == 5
            is_non_reference = is_non_reference and kind == 1 and not unit[0] & 0x60  # nal_ref_idc
        elif kind in (7, 8):
            parameter_sets.append(bytes(unit))
        elif kind not in (9, 12):
            is_non_reference = False  # messages (SEI) may concern later pictures too
    if parameter_sets:
        return PacketInfo(
            RandomAccess.CLOSED if is_idr and has_slices else RandomAccess.NONE, False, b"\0\0\1".join(parameter_sets)
        )
    if not has_slices:
        return PLAIN
    return CLOSED if is_idr else NON_REFERENCE if is_non_reference else PLAIN


def _parse_hevc(units: list[_Bytes] | None) -> PacketInfo | None:
    """Parse an H.265 packet, table 7-1: below 32 slices, 19 and 20 IDR, 21 CRA; 32 to 34 parameter sets.

    Frames that follow a CRA and are displayed before it may need earlier ones. No frame is marked as non-reference: one
    that its temporal layer does not need may be needed by a higher layer.
    """
    if not units:
        return None
    kinds = {(unit[0] >> 1) & 63 for unit in units}
    slice_types = {kind for kind in kinds if kind < 32}
    random_access = RandomAccess.NONE
    if slice_types and slice_types <= {19, 20}:
        random_access = RandomAccess.CLOSED
    elif slice_types == {21}:
        random_access = RandomAccess.OPEN
    parameter_sets = [bytes(unit) for unit in units if 32 <= (unit[0] >> 1) & 63 <= 34]
    return PacketInfo(random_access, False, b"\0\0\1".join(parameter_sets))


def _parse_vp8(packet: memoryview) -> PacketInfo:
    """Parse a VP8 packet (RFC 6386, 9.1): the lowest bit is 0 in keyframes."""
    return PLAIN if packet[0] & 1 else CLOSED


def _parse_vp9(packet: memoryview) -> PacketInfo | None:
    """Parse a VP9 packet (6.2).

    Fields: marker (2 bits), profile (2, one more in profile 3), show_existing_frame, frame_type.
    """
    first = packet[0]
    if first >> 6 != 2:
        return None
    bits = first & 3 if first & 0x30 == 0x30 else first >> 2 & 3
    return CLOSED if bits == 0 else PLAIN


def _parse_av1(packet: memoryview) -> PacketInfo | None:
    """Parse an AV1 packet (5.3 and 5.9): decoding can begin at a sequence header followed by a displayed keyframe."""
    offset, has_sequence_header = 0, False
    for _ in range(_MAX_OBUS):
        if offset >= len(packet):
            return PLAIN
        kind, extended, sized = packet[offset] >> 3 & 15, packet[offset] >> 2 & 1, packet[offset] >> 1 & 1
        offset += 1 + extended
        size, read = _parse_leb128(packet, offset) if sized else (len(packet) - offset, 0)
        offset += read
        if size < 0 or offset + size > len(packet):
            return None
        if kind == 1:
            # A still picture's header has another form and needs no seeking.
            has_sequence_header = size > 0 and not packet[offset] & 0x08
        elif kind in (3, 6) and size:
            # show_existing_frame 0, frame_type 00, show_frame 1
            return CLOSED if has_sequence_header and packet[offset] >> 4 == 1 else PLAIN
        offset += size
    return None


def _parse_leb128(packet: memoryview, offset: int) -> tuple[int, int]:
    """Return (value, bytes read); the value is -1 if the number does not end."""
    value = 0
    for count, byte in enumerate(islice(packet[offset : offset + 8], 8)):
        value |= (byte & 127) << 7 * count
        if not byte & 128:
            return value, count + 1
    return -1, 0


def _parse_mpeg12(packet: memoryview) -> PacketInfo:
    """Parse an MPEG-1 or MPEG-2 packet (MPEG-2, 6.2).

    A sequence header (B3) resets all tables; an I picture (00) must follow. B pictures are non-reference.
    """
    data = bytes(packet)
    has_sequence_header, picture = data.find(b"\0\0\1\xb3"), data.find(b"\0\0\1\0")
    kind = data[picture + 5] >> 3 & 7 if 0 <= picture < len(data) - 5 else 0
    if kind == 3:
        return NON_REFERENCE if has_sequence_header < 0 else PLAIN
    return OPEN if kind == 1 and 0 <= has_sequence_header < picture else PLAIN


def _parse_mjpeg(packet: memoryview) -> PacketInfo:
    """Parse a JPEG picture: it is independent if it contains its quantisation (DB) and Huffman (C4) tables."""
    markers = set(islice(_iter_jpeg_markers(packet), _MAX_JPEG_SEGMENTS))
    return CLOSED if {0xDB, 0xC4} <= markers else PLAIN


def _iter_jpeg_markers(packet: memoryview) -> Iterator[int]:
    """Iterate over the segment markers between the beginning of a picture and its scan."""
    offset = 2
    while (
        packet[:2] == b"\xff\xd8"
        and offset + 4 <= len(packet)
        and packet[offset] == 0xFF
        and packet[offset + 1] != 0xDA
    ):
        yield packet[offset + 1]
        offset += 2 + max(2, int.from_bytes(packet[offset + 2 : offset + 4], "big"))


def _parse_intra_only(packet: memoryview) -> PacketInfo:
    """Accept any packet of codecs of cameras and editors, in which every frame is independent."""
    return CLOSED


_PARSERS: dict[str, PacketParser] = {
    "av1": _parse_av1,
    "dnxhd": _parse_intra_only,
    "mjpeg": _parse_mjpeg,
    "mpeg1video": _parse_mpeg12,
    "mpeg2video": _parse_mpeg12,
    "prores": _parse_intra_only,
    "vp8": _parse_vp8,
    "vp9": _parse_vp9,
}
