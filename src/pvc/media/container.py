"""Open a video with FFmpeg (PyAV) and read the times of its packets. Nothing but the given bytes is read.

The demuxer is forced and no protocol is allowed. No decoder runs while a file is opened: sizes come from headers alone.
Only this file, the decoding files, live.py and write.py use `av`, and none of them is imported before the first
video. Called by decode.py, gop_decode.py, live.py, outline.py and `probe`.
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
    RuntimeError,  # PyAV on codecs that change within a stream
    IndexError,  # PyAV 18 when a stream turns up that the header did not announce
)
"""Errors that PyAV raises for damaged data. `open_source` handles the OSError of the file itself."""

OPEN_OPTIONS = {
    # No protocol has this name, so files that a container refers to cannot be opened.
    "protocol_whitelist": "none",
    # No decoder has this name, so opening reads headers and never decodes to probe the format.
    "codec_whitelist": "none",
}

# FFmpeg has hundreds of decoders; these cover practically all videos. The others (JPEG 2000 among them) only
# widen the attack surface.
CODECS = frozenset(
    (
        *("av1", "h264", "hevc", "theora", "vp8", "vp9"),  # published today
        *("h263", "mpeg1video", "mpeg2video", "mpeg4", "msmpeg4v2", "msmpeg4v3"),  # published in the past
        *("dnxhd", "ffv1", "mjpeg", "prores"),  # written by cameras and editors
    )
)

# Seconds. If the last frame lasts longer than this and than all others, its duration is taken as wrong.
_MAX_LAST_FRAME_S = 60

# Half a millisecond: Matroska rounds times to milliseconds.
_MAX_ROUNDING_S = 0.0005


@dataclass(frozen=True)
class Timeline:
    """Presentation times of the frames of a stream.

    Attributes:
        frame_pts: presentation timestamps in units of `time_base`, sorted, without repeats.
        time_base: seconds per unit of pts.
        duration: seconds, None if unknown.
        missing_frames: number of frames that the index lists and the file does not contain.
        is_truncated: whether reading stopped at an error.
        is_in_order: whether the container stores no pts, so that the n-th decoded frame has the n-th of `frame_pts`.
    """

    frame_pts: list[int]
    time_base: Fraction
    duration: float | None
    missing_frames: int
    is_truncated: bool
    is_in_order: bool

    def seconds(self, pts: int) -> float:
        """Convert a pts to seconds since the first frame."""
        return float((pts - self.frame_pts[0]) * self.time_base)

    @property
    def times(self) -> list[float]:
        """Seconds of all frames since the first one."""
        return [self.seconds(pts) for pts in self.frame_pts]

    @property
    def slack(self) -> float:
        """Seconds by which a frame may come late and still count as on display.

        Matroska rounds times to milliseconds. Up to half a unit late counts as on display. Otherwise, sampling a video
        of 30 frames per second at fps=30 would miss every third frame.
        """
        return SLACK + min(float(self.time_base) / 2, _MAX_ROUNDING_S)


@contextmanager
def open_container(source: Source) -> Iterator[InputContainer]:
    """Open the container of an open file with FFmpeg.

    Args:
        source: the open file; its format names the demuxer.

    Raises:
        MediaError: `corrupt_media`, or `too_many_bytes` of headers.
    """
    reader = source.format.reader
    file = DemuxerView(source, read_index(source).stray_tags if reader == "mp4" else ())
    file.seek(0)
    try:
        container = av.open(file, mode="r", format=reader, options=dict(OPEN_OPTIONS), metadata_errors="replace")
    except AV_ERRORS as error:
        raise to_media_error(source.name, error) from error
    file.finish_headers()
    try:
        yield container
    finally:
        container.close()


def pick_stream(container: InputContainer, name: str, limits: Limits) -> VideoStream:
    """Pick the video stream to decode: one with the default flag if there is one, then the largest, then the first.

    Cover pictures are not video. All other streams are discarded while demuxing.

    Args:
        container: an open container.
        name: file name for error messages.
        limits: bounds on the size in the header.

    Raises:
        MediaError: `no_video_stream`, `unsupported_format` (no stream has a supported codec), or what
            `Limits.check_size` raises.
    """
    cover_flags = Disposition.attached_pic | Disposition.timed_thumbnails
    streams = [stream for stream in container.streams.video if not stream.disposition & cover_flags]
    if not streams:
        raise MediaError(f"{name}: there is no video in this file", code="no_video_stream")
    readable = [stream for stream in streams if _get_codec_name(stream) in CODECS]
    if not readable:
        raise MediaError(f"{name}: video codec {_get_codec_name(streams[0])} is not read", code="unsupported_format")
    best = max(readable, key=lambda s: (bool(s.disposition & Disposition.default), s.width * s.height, -s.index))
    # A transport stream cut before its first keyframe declares no size; the decoder's limit still applies.
    if best.width or best.height:
        limits.check_size(best.width, best.height, name)
    for stream in container.streams:
        if stream is not best:
            stream.discard = Discard.all
    return best


def get_display_size(source: Source, container: InputContainer, stream: VideoStream) -> tuple[int, int]:
    """Return (width, height) of the frames as displayed, as far as the container declares their rotation.

    This moves the file position, so no packet of `container` can be read afterwards.

    Args:
        source: the open file.
        container: its container.
        stream: the video stream.
    """
    width, height = stream.width, stream.height
    if source.format.reader == "mp4":
        return read_index(source).orientations.get(stream.id, UPRIGHT).apply_to_size(width, height)
    if source.format.reader == "matroska":
        number = [video.index for video in container.streams.video].index(stream.index)
        return (height, width) if is_sideways(source.file, source.size, number) else (width, height)
    return width, height


def read_timeline(
    source: Source,
    container: InputContainer,
    stream: VideoStream,
    limits: Limits,
    packet_index: PacketIndex | None = None,
) -> Timeline:
    """Read all packets of `stream` once and collect their presentation times.

    Args:
        source: the open file.
        container: its container, at the first packet.
        stream: the video stream.
        limits: bounds on the number of packets, their bytes and the time.
        packet_index: receives every packet, for a later decode plan.

    Raises:
        MediaError: `no_video_frames` without packets, `corrupt_media` without times, `too_many_frames` beyond
            `limits.max_source_frames`, `too_many_bytes` for one packet.
    """
    durations: dict[int, int] = {}
    deadline = Deadline(limits, source.name)
    packets, is_truncated = 0, False
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
            if packet_index is not None:
                packet_index.add(packet)
            pts = packet.pts if packet.pts is not None else packet.dts
            # Discarded packets are decoded for others, but precede the start that an edit list sets.
            if pts is not None and not packet.is_discard:
                durations[pts] = packet.duration or 0
    except AV_ERRORS:
        is_truncated = True
    time_base = stream.time_base
    if not packets and not is_truncated:
        raise MediaError(f"{source.name}: the video has no frames", code="no_video_frames")
    if not durations or not time_base or time_base <= 0:
        raise MediaError(f"{source.name}: no frame of the video has a time", code="corrupt_media")
    frame_pts = sorted(durations)
    last_duration = durations[frame_pts[-1]] * time_base
    return Timeline(
        frame_pts,
        time_base,
        _compute_duration(frame_pts, last_duration, time_base),
        _count_missing_frames(source, stream, packets),
        is_truncated,
        is_in_order=container.format.name == "avi",
    )


def to_media_error(name: str, error: BaseException) -> MediaError:
    """Build the MediaError for an error of FFmpeg, without the internals that PyAV adds.

    Args:
        name: file name for the error message.
        error: one of AV_ERRORS.
    """
    detail = getattr(error, "strerror", None) or type(error).__name__
    return MediaError(f"{name}: damaged video: {detail}", code="corrupt_media")


def _get_codec_name(stream: VideoStream) -> str:
    context = stream.codec_context
    return context.codec.canonical_name if context is not None else "(unknown)"


def _compute_duration(frame_pts: list[int], last_duration: Fraction, time_base: Fraction) -> float | None:
    """Compute the seconds from the first frame to the end of the last one; the declared duration is ignored."""
    longest = time_base * max((later - earlier for earlier, later in pairwise(frame_pts)), default=0)
    if not 0 < last_duration <= max(longest, Fraction(_MAX_LAST_FRAME_S)):
        if len(frame_pts) == 1:
            return None
        last_duration = (frame_pts[-1] - frame_pts[0]) * time_base / (len(frame_pts) - 1)
    return float((frame_pts[-1] - frame_pts[0]) * time_base + last_duration)


def _count_missing_frames(source: Source, stream: VideoStream, packets: int) -> int:
    """Count the frames that the index of an MP4 places behind the end of the file; 0 for other containers."""
    if source.format.reader != "mp4" or len(stream.index_entries) <= packets:
        return 0
    return sum(entry.pos >= source.size for entry in stream.index_entries)
