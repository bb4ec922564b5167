"""Opens a video with FFmpeg (PyAV) so that nothing but the given bytes is read, and walks its packets.

The demuxer is forced, no protocol is allowed, and no decoder runs while a file is opened: sizes come from
headers alone. Leaves out decoding (decode.py). The only importer of `av` besides decode.py and write.py, and
itself imported only once a video is touched. Called by decode.py and `probe`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

import av
from av.container import InputContainer
from av.stream import Discard, Disposition
from av.video.stream import VideoStream

from pvc.errors import MediaError
from pvc.media.decode_plan import PacketIndex
from pvc.media.demuxer import DemuxerView
from pvc.media.limits import Deadline, Limits
from pvc.media.matroska import is_sideways
from pvc.media.mp4 import read_index
from pvc.media.orientation import UPRIGHT
from pvc.media.sampling import SLACK
from pvc.media.source import Source

AV_ERRORS = (
    av.FFmpegError,  # every error code of FFmpeg
    ValueError,  # PyAV on pixel formats and names it does not know
    OverflowError,
    ZeroDivisionError,  # a time base of 1/0
    MemoryError,
    RuntimeError,  # PyAV on codecs that change their mind
    IndexError,  # PyAV 18 when a stream turns up that the header did not announce
)
"""What PyAV raises for damaged data. OSError from the file itself is left to `open_source`."""

OPEN_OPTIONS = {
    # No protocol has this name, so whatever a file refers to cannot be opened.
    "protocol_whitelist": "none",
    # No decoder has it either: opening reads headers and never decodes, not even a little to guess the format.
    "codec_whitelist": "none",
}

# FFmpeg knows hundreds of decoders; these make up practically all videos. The others (JPEG 2000 among them) only
# add to what an attacker can reach.
CODECS = frozenset(
    (
        *("av1", "h264", "hevc", "theora", "vp8", "vp9"),  # what is published
        *("h263", "mpeg1video", "mpeg2video", "mpeg4", "msmpeg4v2", "msmpeg4v3"),  # what was
        *("dnxhd", "ffv1", "mjpeg", "prores"),  # what cameras and editors write
    )
)

# A last frame that stays longer than a minute, and longer than any frame before it, is a lie of the header.
_LONGEST_HOLD = 60


_MAX_ROUNDING_S = 0.0005


@dataclass(frozen=True)
class Timeline:
    """When the frames of a stream appear.

    `ticks`: presentation times in units of `unit` seconds, sorted, without repeats. `duration`: seconds, None when
    unknown. `lost`: pictures that the index lists and the file does not contain. `cut`: reading stopped at an error.
    `in_order`: the container stores no presentation times, so the n-th decoded frame is the n-th tick.
    """

    ticks: list[int]
    unit: Fraction
    duration: float | None
    lost: int
    cut: bool
    in_order: bool

    def seconds(self, tick: int) -> float:
        """Return the time of `tick` since the first one."""
        return float((tick - self.ticks[0]) * self.unit)

    @property
    def times(self) -> list[float]:
        """Seconds of all frames since the first one."""
        return [self.seconds(tick) for tick in self.ticks]

    @property
    def slack(self) -> float:
        """Seconds by which a frame may come late and still count as on display.

        Matroska rounds times to milliseconds. Half a tick late is on display, otherwise every third frame of a video
        at 30 frames a second would be missed when 30 frames a second are asked for.
        """
        return SLACK + min(float(self.unit) / 2, _MAX_ROUNDING_S)


@contextmanager
def open_container(source: Source) -> Iterator[InputContainer]:
    """FFmpeg's view of an open file. Raises MediaError `corrupt_media` and `too_many_bytes` (of headers)."""
    reader = source.format.reader
    file = DemuxerView(source, read_index(source).stray if reader == "mp4" else ())
    file.seek(0)
    try:
        container = av.open(file, mode="r", format=reader, options=dict(OPEN_OPTIONS), metadata_errors="replace")
    except AV_ERRORS as error:
        raise broken(source.name, error) from error
    file.end_of_headers()
    try:
        yield container
    finally:
        container.close()


def pick_stream(container: InputContainer, name: str, limits: Limits) -> VideoStream:
    """The video stream to decode: one flagged as default if there is one, then the largest, then the first.

    Cover pictures are not video. Raises MediaError `no_video_stream`, `unsupported_format` (of all streams only
    codecs that are not read) and what `Limits.check_size` raises for the size in the header.
    """
    covers = Disposition.attached_pic | Disposition.timed_thumbnails
    streams = [stream for stream in container.streams.video if not stream.disposition & covers]
    if not streams:
        raise MediaError(f"{name}: there is no video in this file", code="no_video_stream")
    readable = [stream for stream in streams if _codec(stream) in CODECS]
    if not readable:
        raise MediaError(f"{name}: video codec {_codec(streams[0])} is not read", code="unsupported_format")
    best = max(readable, key=lambda s: (bool(s.disposition & Disposition.default), s.width * s.height, -s.index))
    # A transport stream cut off before its first key frame shows no size; the decoder's own limit still holds.
    if best.width or best.height:
        limits.check_size(best.width, best.height, name)
    for stream in container.streams:
        if stream is not best:
            stream.discard = Discard.all
    return best


def shown_size(source: Source, container: InputContainer, stream: VideoStream) -> tuple[int, int]:
    """(width, height) of the frames as they are shown, as far as the container says how they are turned.

    Moves the position of the file, so no packet of `container` can be read afterwards.
    """
    width, height = stream.width, stream.height
    if source.format.reader == "mp4":
        return read_index(source).orientations.get(stream.id, UPRIGHT).size(width, height)
    if source.format.reader == "matroska":
        number = [one.index for one in container.streams.video].index(stream.index)
        return (height, width) if is_sideways(source.file, source.size, number) else (width, height)
    return width, height


def read_timeline(
    source: Source,
    container: InputContainer,
    stream: VideoStream,
    limits: Limits,
    index: PacketIndex | None = None,
) -> Timeline:
    """Walk all packets of `stream` once and collect their presentation times; `index` takes note of each.

    Raises MediaError `no_video_frames` when there are no packets, `corrupt_media` when they have no times,
    `too_many_frames` beyond `limits.max_source_frames`.
    """
    holds: dict[int, int] = {}
    deadline = Deadline(limits, source.name)
    packets, cut = 0, False
    try:
        for packet in container.demux(stream):
            if not packet.size:
                continue
            packets += 1
            if packets > limits.max_source_frames:
                raise MediaError(f"{source.name}: more than {limits.max_source_frames} packets", code="too_many_frames")
            if packet.size > limits.max_bytes:
                raise MediaError(
                    f"{source.name}: a packet of {packet.size} bytes; the limit is {limits.max_bytes}",
                    code="too_many_bytes",
                )
            if packets % 1024 == 0:
                deadline.check()
            if index is not None:
                index.note(packet)
            tick = packet.pts if packet.pts is not None else packet.dts
            # Discarded: decoded because others need them, but before the start that an edit list sets.
            if tick is not None and not packet.is_discard:
                holds[tick] = packet.duration or 0
    except AV_ERRORS:
        cut = True
    unit = stream.time_base
    if not packets and not cut:
        raise MediaError(f"{source.name}: the video has no frames", code="no_video_frames")
    if not holds or not unit or unit <= 0:
        raise MediaError(f"{source.name}: no frame of the video has a time", code="corrupt_media")
    ticks = sorted(holds)
    last_hold = holds[ticks[-1]] * unit
    return Timeline(
        ticks,
        unit,
        _duration(ticks, last_hold, unit),
        _lost(source, stream, packets),
        cut,
        in_order=container.format.name == "avi",
    )


def broken(name: str, error: BaseException) -> MediaError:
    """The MediaError for what FFmpeg said about a file, without the internals that PyAV adds."""
    detail = getattr(error, "strerror", None) or type(error).__name__
    return MediaError(f"{name}: damaged video: {detail}", code="corrupt_media")


def _codec(stream: VideoStream) -> str:
    context = stream.codec_context
    return context.codec.canonical_name if context is not None else "(unknown)"


def _duration(ticks: list[int], last_hold: Fraction, unit: Fraction) -> float | None:
    """From the first frame to the end of the last one; what the file declares as a whole is not looked at."""
    longest = unit * max((later - earlier for earlier, later in pairwise(ticks)), default=0)
    if not 0 < last_hold <= max(longest, Fraction(_LONGEST_HOLD)):
        if len(ticks) == 1:
            return None
        last_hold = (ticks[-1] - ticks[0]) * unit / (len(ticks) - 1)
    return float((ticks[-1] - ticks[0]) * unit + last_hold)


def _lost(source: Source, stream: VideoStream, packets: int) -> int:
    """How many pictures an MP4's index places behind the end of the file. Other containers have no such index."""
    if source.format.reader != "mp4" or len(stream.index_entries) <= packets:
        return 0
    return sum(entry.pos >= source.size for entry in stream.index_entries)
