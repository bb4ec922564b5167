"""Build a decode plan: which packets of a video must be decoded for the requested frames.

Decoding is the cost; reading a packet costs a hundredth of it. So nothing seeks in the file, which few containers do
exactly: all packets are read in order, and those that no requested frame needs are not decoded. Decoding begins only
where the header of the packet allows it. In any doubt there is no plan, and decode.py decodes every packet.
Called by container.py, which reads the packets, and decode.py.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from pvc.media.keyframes import RandomAccess, get_packet_parser

if TYPE_CHECKING:
    from av.packet import Packet
    from av.video.stream import VideoStream

_Pts: TypeAlias = "np.ndarray[Any, np.dtype[np.int64]]"
_PacketNumbers: TypeAlias = "np.ndarray[Any, np.dtype[np.intp]]"

# Larger values are invalid, and their differences would not fit into 64 bits.
_MAX_PTS = 2**62


class PacketIndex:
    """The packets of one stream in decoding order, filled by `container.read_timeline`: 11 bytes per packet.

    Args:
        stream: the video stream.

    Attributes:
        is_reliable: whether a decode plan can be built at all.
        packet_pts: pts of each packet.
        random_access: the RandomAccess of each packet.
        non_reference: 1 for each packet that no other frame refers to.
        is_displayed: 1 for each packet whose frame is displayed, 0 if the container marks it as discarded.
    """

    def __init__(self, stream: VideoStream) -> None:
        context = stream.codec_context
        self._parse = get_packet_parser(context.codec.canonical_name, context.extradata)
        self.is_reliable = self._parse is not None
        self.packet_pts = array("q")
        self.random_access = bytearray()
        self.non_reference = bytearray()
        self.is_displayed = bytearray()
        self._parameter_sets = b""

    def add(self, packet: Packet) -> None:
        """Add the next packet. This never raises; if a packet is unexpected, `is_reliable` becomes false."""
        if not self.is_reliable:
            return
        pts = packet.pts
        assert self._parse is not None
        # Parameter sets may change in a packet that the plan leaves out, so a change makes the index unreliable.
        info = None if packet.has_sidedata("new_extradata") else self._parse(memoryview(packet))
        first = not self.packet_pts
        if first and info is not None:
            self._parameter_sets = info.parameter_sets
        if (
            pts is None
            or abs(pts) > _MAX_PTS
            or info is None
            or (info.parameter_sets and info.parameter_sets != self._parameter_sets)
            or (first and info.random_access is RandomAccess.NONE)
        ):
            self.is_reliable = False
            return
        self.packet_pts.append(pts)
        self.random_access.append(info.random_access)
        self.non_reference.append(info.is_non_reference)
        self.is_displayed.append(not packet.is_discard)


@dataclass(frozen=True)
class Gop:
    """Packets that can be decoded without any earlier packet.

    Attributes:
        first: number of the packet at which decoding begins.
        decode_mask: for each packet from `first` to the last one that is decoded, 1 if it is decoded.
        frames: number of frames that these packets give.
        is_open: whether it is an open GOP. The decoder is then flushed before it, because file order and display order
            differ around its start.
    """

    first: int
    decode_mask: bytes
    frames: int
    is_open: bool


def build_decode_plan(index: PacketIndex, targets: Sequence[int]) -> list[Gop] | None:
    """Build the decode plan for the frames at `targets`.

    Args:
        index: all packets of the stream.
        targets: pts of the requested frames, sorted.

    Returns:
        Disjoint GOPs in file order. None if it is uncertain, or no better than decoding from the first packet on.
    """
    if not index.is_reliable or not index.packet_pts:
        return None
    packet_pts = np.frombuffer(index.packet_pts, np.int64)
    flags = np.frombuffer(index.is_displayed, np.uint8)
    displayed = np.flatnonzero(flags)
    by_time = displayed[np.argsort(packet_pts[displayed], kind="stable")]
    times = packet_pts[by_time]
    if not len(times) or bool(np.any(np.diff(times) == 0)):
        return None
    target_packets = by_time[np.minimum(np.searchsorted(times, targets), len(times) - 1)]
    if not np.array_equal(packet_pts[target_packets], targets):
        return None
    non_reference = np.frombuffer(index.non_reference, np.uint8).astype(bool)
    # The second field of a frame can be a separate packet, so the neighbours of a target are decoded.
    for offset in (-1, 0, 1):
        non_reference[np.clip(target_packets + offset, 0, len(non_reference) - 1)] = False
    gops: list[Gop] = []
    for first, last, start in _find_gops(index, packet_pts, _find_entry_points(index, packet_pts), target_packets):
        packets = slice(first, last + 1)
        decode_mask = (packet_pts[packets] >= start) & ~non_reference[packets]
        is_open = index.random_access[first] == RandomAccess.OPEN
        gops.append(Gop(first, decode_mask.tobytes(), int((decode_mask & (flags[packets] > 0)).sum()), is_open))
    if len(gops) == 1 and gops[0].first == 0 and all(gops[0].decode_mask):
        return None
    return gops


def _find_entry_points(index: PacketIndex, packet_pts: _Pts) -> _PacketNumbers:
    """Find the packets where decoding may begin: all later packets are displayed after all earlier ones."""
    candidates = np.flatnonzero(np.frombuffer(index.random_access, np.uint8))
    latest_before = np.maximum.accumulate(packet_pts)
    earliest_from = np.minimum.accumulate(packet_pts[::-1])[::-1]
    later = candidates[1:]
    return np.append(candidates[:1], later[earliest_from[later] > latest_before[later - 1]])


def _find_gops(
    index: PacketIndex, packet_pts: _Pts, entry_points: _PacketNumbers, target_packets: _PacketNumbers
) -> list[tuple[int, int, int]]:
    """Return (first packet, last packet, earliest pts) of each GOP.

    Frames displayed before the earliest pts may need packets before the first one; nothing in the GOP needs them.

    Args:
        index: all packets of the stream.
        packet_pts: pts of each packet.
        entry_points: packets where decoding may begin.
        target_packets: packets of the requested frames, by time.
    """
    lowest = int(packet_pts.min())
    gops: list[tuple[int, int, int]] = []
    for target in target_packets.tolist():
        nearest = int(np.searchsorted(entry_points, target, side="right")) - 1
        entry_point = int(entry_points[nearest])
        is_leading = packet_pts[target] < packet_pts[entry_point]
        if index.random_access[entry_point] == RandomAccess.OPEN and is_leading and nearest:
            # Displayed before the entry point, so it may need packets before it.
            entry_point = int(entry_points[nearest - 1])
        is_open = index.random_access[entry_point] == RandomAccess.OPEN
        # If an open GOP follows at once, continue: beginning there would lose its leading frames.
        if gops and entry_point <= gops[-1][1] + is_open:
            first, last, start = gops[-1]
            gops[-1] = (first, max(last, target), start)
        else:
            starts_here = is_open and packet_pts[target] >= packet_pts[entry_point]
            gops.append((entry_point, target, int(packet_pts[entry_point]) if starts_here else lowest))
    return gops
