"""Which packets of a video have to be decoded for the frames that are wanted: a forward pass with leaps.

What costs time is decoding; walking the packets costs a hundredth. So nothing seeks in the file, which few
containers do exactly: all packets are read in order, and those that no wanted frame needs are not handed to a
decoder. A leap lands only where the packet's own header says that decoding can begin. Where any doubt is left there
is no plan, and decode.py takes every packet. Leaves out reading packets (container.py) and decoding (gop_decode.py).
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from pvc.media.keyframes import RandomAccess, reader_for

if TYPE_CHECKING:
    from av.packet import Packet
    from av.video.stream import VideoStream

_Ticks: TypeAlias = "np.ndarray[Any, np.dtype[np.int64]]"
_Numbers: TypeAlias = "np.ndarray[Any, np.dtype[np.intp]]"

# Times beyond are lies, and differences between two of them would not fit into 64 bits.
_LARGEST_TICK = 2**62


class PacketIndex:
    """The packets of one stream in the order of decoding: 11 bytes for each, whatever the file declares.

    `sound`: whether leaps can be planned at all. Made while the times are read (container.read_timeline).
    """

    def __init__(self, stream: VideoStream) -> None:
        context = stream.codec_context
        self._read = reader_for(context.codec.canonical_name, context.extradata)
        self.sound = self._read is not None
        self.ticks = array("q")
        self.entries = bytearray()
        self.spare = bytearray()
        self.shown = bytearray()
        self._headers = b""

    def note(self, packet: Packet) -> None:
        """Add the next packet. Raises nothing for whatever is in it; `sound` turns false."""
        if not self.sound:
            return
        tick = packet.pts
        assert self._read is not None
        # Tables that change on the way, maybe in a packet that would be left out, are not followed.
        mark = None if packet.has_sidedata("new_extradata") else self._read(memoryview(packet))
        first = not self.ticks
        if first and mark is not None:
            self._headers = mark.headers
        if (
            tick is None
            or abs(tick) > _LARGEST_TICK
            or mark is None
            or (mark.headers and mark.headers != self._headers)
            or (first and mark.entry is RandomAccess.NONE)
        ):
            self.sound = False
            return
        self.ticks.append(tick)
        self.entries.append(mark.entry)
        self.spare.append(mark.spare)
        self.shown.append(not packet.is_discard)


@dataclass(frozen=True)
class Gop:
    """Packets that can be decoded without any before them.

    `first`: number of the packet at which decoding begins. `take`: for each packet from there on whether it is
    decoded, up to the last one that is. `frames`: how many frames that gives. `opened`: the decoder has to be emptied
    before, since what comes first in the file may have another place in time.
    """

    first: int
    take: bytes
    frames: int
    opened: bool


def plan(index: PacketIndex, targets: Sequence[int]) -> list[Gop] | None:
    """The groups of packets, in order and apart, to decode for the frames at `targets` (ticks, sorted).

    None when it cannot be told for certain, or when it would be no better than decoding from the first packet on.
    """
    if not index.sound or not index.ticks:
        return None
    ticks = np.frombuffer(index.ticks, np.int64)
    flags = np.frombuffer(index.shown, np.uint8)
    shown = np.flatnonzero(flags)
    by_time = shown[np.argsort(ticks[shown], kind="stable")]
    times = ticks[by_time]
    if not len(times) or bool(np.any(np.diff(times) == 0)):
        return None
    places = by_time[np.minimum(np.searchsorted(times, targets), len(times) - 1)]
    if not np.array_equal(ticks[places], targets):
        return None
    spare = np.frombuffer(index.spare, np.uint8).astype(bool)
    # The second field of a picture can be a packet of its own, so the neighbours of a wanted one stay.
    for offset in (-1, 0, 1):
        spare[np.clip(places + offset, 0, len(spare) - 1)] = False
    gops: list[Gop] = []
    for first, last, start in _gops(index, ticks, _entry_points(index, ticks), places):
        span = slice(first, last + 1)
        take = (ticks[span] >= start) & ~spare[span]
        opened = index.entries[first] == RandomAccess.OPEN
        gops.append(Gop(first, take.tobytes(), int((take & (flags[span] > 0)).sum()), opened))
    if len(gops) == 1 and gops[0].first == 0 and all(gops[0].take):
        return None
    return gops


def _entry_points(index: PacketIndex, ticks: _Ticks) -> _Numbers:
    """Packets where a leap may land: whatever comes from there on is also shown after all that came before."""
    entries = np.flatnonzero(np.frombuffer(index.entries, np.uint8))
    latest_before = np.maximum.accumulate(ticks)
    earliest_from = np.minimum.accumulate(ticks[::-1])[::-1]
    later = entries[1:]
    return np.append(entries[:1], later[earliest_from[later] > latest_before[later - 1]])


def _gops(index: PacketIndex, ticks: _Ticks, doors: _Numbers, places: _Numbers) -> list[tuple[int, int, int]]:
    """(first packet, last packet, earliest tick) of each group; `places`: the packets of the wanted frames, by time.

    What is shown before the earliest tick may need packets before the first one, and nothing in the group needs it.
    """
    lowest = int(ticks.min())
    spans: list[tuple[int, int, int]] = []
    for place in places.tolist():
        nearest = int(np.searchsorted(doors, place, side="right")) - 1
        if index.entries[doors[nearest]] == RandomAccess.OPEN and ticks[place] < ticks[doors[nearest]] and nearest:
            nearest -= 1  # shown before the picture at the door, so it may need what lies before the door
        door = int(doors[nearest])
        opened = index.entries[door] == RandomAccess.OPEN
        # Going on costs nothing where an open door follows at once, and entering it would cost its leading pictures.
        if spans and door <= spans[-1][1] + opened:
            first, last, start = spans[-1]
            spans[-1] = (first, max(last, place), start)
        else:
            spans.append((door, place, int(ticks[door]) if opened and ticks[place] >= ticks[door] else lowest))
    return spans
