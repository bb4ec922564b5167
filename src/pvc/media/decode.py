"""Decode the chosen frames of a video: the GOPs that contain them, or every packet in one pass.

Intact videos are decoded by gop_decode.py according to decode_plan.py. At the first sign of damage every packet is
decoded by several threads. If the video is damaged, it is decoded once more on one thread, because FFmpeg's error
concealment depends on its threads. A damaged packet costs only its frames. Called by video.py and live.py.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from av.video.frame import VideoFrame

from pvc.errors import MediaError
from pvc.media.container import AV_ERRORS, Timeline, open_container, pick_stream, read_timeline, to_media_error
from pvc.media.decode_plan import PacketIndex, build_decode_plan
from pvc.media.decoder import DecodeErrors, configure_decoder
from pvc.media.gop_decode import GopDecoder
from pvc.media.limits import Deadline, Limits
from pvc.media.pixels import FrameStack
from pvc.media.resizing import WORKERS, Resizer
from pvc.media.sampling import Sampling, choose
from pvc.media.source import Source
from pvc.media.types import Video

# More threads hold more frames in memory and gain little for a few frames per video.
_THREADS = min(4, os.cpu_count() or 1)


def read_video(source: Source, sampling: Sampling, size: tuple[int, int] | None, limits: Limits) -> Video:
    """Decode the frames of an open video that `sampling` picks.

    Args:
        source: the open video.
        sampling: which frames to take.
        size: (height, width) in pixels to which frames are resized.
        limits: bounds on the file and the result.

    Raises:
        MediaError: as in `load_video`.
        UsageError: as in `load_video`.
    """
    sampling.check(limits, source.name)
    with open_container(source) as container:
        stream = pick_stream(container, source.name, limits)
        packet_index = PacketIndex(stream)
        timeline = read_timeline(source, container, stream, limits, packet_index)
        stream_index = stream.index
    indices, warnings = choose(timeline.times, timeline.duration, sampling, limits, timeline.slack)
    targets = [timeline.frame_pts[i] for i in indices]
    deadline = Deadline(limits, source.name)
    stack = FrameStack(len(targets), size, limits, source.name)
    notes: tuple[str, ...] = ()
    gops = (
        None
        if timeline.is_truncated or timeline.missing_frames or timeline.is_in_order
        else build_decode_plan(packet_index, targets)
    )
    if gops and GopDecoder(source, stream_index, gops, targets, packet_index.packet_pts[0], limits, deadline).fill(
        stack, _THREADS, WORKERS
    ):
        stack.timestamps = [timeline.seconds(pts) for pts in targets]
    else:
        del packet_index, gops, stack  # before the next one is allocated
        stack, notes = _decode_all_packets(source, stream_index, targets, timeline, size, limits, deadline)
    return Video(
        stack.get_frames(),
        tuple(stack.timestamps),
        timeline.duration,
        source.name,
        source.format.name,
        warnings + notes + stack.get_warnings(),
        len(timeline.frame_pts),
    )


def _decode_all_packets(
    source: Source,
    stream_index: int,
    targets: Sequence[int],
    timeline: Timeline,
    size: tuple[int, int] | None,
    limits: Limits,
    deadline: Deadline,
) -> tuple[FrameStack, tuple[str, ...]]:
    """Decode every packet. Return the frames at `targets` (pts), and warnings about missing frames."""
    for threads, workers in ((_THREADS, WORKERS), (1, 0)):
        stack = FrameStack(len(targets), size, limits, source.name)
        with Resizer(stack, workers) as resizer:
            selector = FrameSelector(targets, timeline, resizer.append)
            errors = _decode_packets(source, stream_index, selector, limits, threads, deadline)
            try:
                resizer.finish()
            except AV_ERRORS as error:
                errors.add(error)
        if not errors:
            break
    if not len(stack):
        raise _build_no_frames_error(source, errors) from errors.first_error
    return stack, _describe_damage(selector, errors, timeline)


class FrameSelector:
    """Assigns a frame to each target: the one with its pts, or the latest one before it if that never comes.

    It holds one decoded frame.

    Args:
        targets: pts of the requested frames, sorted.
        timeline: times of all frames of the stream.
        on_frame: called with each selected frame and its time in seconds.

    Attributes:
        num_targets: number of targets.
        num_matched: number of targets whose exact frame was decoded.
    """

    def __init__(
        self, targets: Sequence[int], timeline: Timeline, on_frame: Callable[[VideoFrame, float], None]
    ) -> None:
        self.num_matched = 0
        self.num_targets = len(targets)
        self._targets = list(reversed(targets))
        self._timeline = timeline
        self._on_frame = on_frame
        self._count = 0
        self._latest: VideoFrame | None = None
        self._latest_pts = timeline.frame_pts[0] - 1
        self._emitted_pts = self._latest_pts

    @property
    def is_done(self) -> bool:
        """Whether every target has been handled."""
        return not self._targets

    def offer(self, frame: VideoFrame) -> None:
        """Process the next decoded frame, in the output order of the decoder."""
        pts = self._get_pts(frame)
        self._count += 1
        while self._targets and self._targets[-1] < pts:
            self._fall_back()
        if pts > self._latest_pts:
            self._latest, self._latest_pts = frame, pts
        if self._targets and self._targets[-1] == pts == self._latest_pts:
            self._targets.pop()
            self._emit()
            self.num_matched += 1

    def skip(self) -> None:
        """Count a failed packet: if frames have no pts, one is missing now."""
        self._count += 1

    def finish(self) -> None:
        """Handle the remaining targets; no more frames will come."""
        while self._targets:
            self._fall_back()

    def _get_pts(self, frame: VideoFrame) -> int:
        frame_pts = self._timeline.frame_pts
        if not self._timeline.is_in_order:
            if frame.pts is not None:
                return frame.pts
            if frame.dts is not None:
                return frame.dts
        return frame_pts[min(self._count, len(frame_pts) - 1)]

    def _fall_back(self) -> None:
        self._targets.pop()
        if self._latest is None:
            return
        # The second field of an interlaced frame can be a packet with a pts, but gives no frame.
        self.num_matched += self._latest.interlaced_frame
        if self._latest_pts > self._emitted_pts:
            self._emit()

    def _emit(self) -> None:
        assert self._latest is not None
        self._emitted_pts = self._latest_pts
        self._on_frame(self._latest, self._timeline.seconds(self._latest_pts))


def _decode_packets(
    source: Source, stream_index: int, selector: FrameSelector, limits: Limits, threads: int, deadline: Deadline
) -> DecodeErrors:
    """Decode the packets of a stream up to the last target, or, on several threads, up to the first damage."""
    errors = DecodeErrors()
    with open_container(source) as container:
        stream = pick_stream(container, source.name, limits)
        assert stream.index == stream_index
        configure_decoder(stream, limits.max_pixels, threads)
        try:
            for packet in container.demux(stream):
                deadline.check()
                try:
                    for frame in packet.decode():
                        errors.corrupt_frames += frame.is_corrupt
                        limits.check_size(frame.width, frame.height, source.name)
                        selector.offer(frame)
                except AV_ERRORS as error:
                    errors.add(error)
                    selector.skip()
                if selector.is_done or (errors and threads > 1):
                    break
        except AV_ERRORS as error:
            errors.add(error)
    selector.finish()
    return errors


def _build_no_frames_error(source: Source, errors: DecodeErrors) -> MediaError:
    if errors.first_error is not None:
        return to_media_error(source.name, errors.first_error)
    return MediaError(f"{source.name}: no frame of the video could be decoded", code="no_video_frames")


def _describe_damage(selector: FrameSelector, errors: DecodeErrors, timeline: Timeline) -> tuple[str, ...]:
    """Build the warnings about frames that are missing or damaged."""
    notes: list[str] = []
    num_present, num_missing = len(timeline.frame_pts), timeline.missing_frames
    if num_missing:
        notes.append(f"partial_decode: got {num_present} of {num_present + num_missing} frames: the file is cut short")
    elif timeline.is_truncated:
        notes.append(f"partial_decode: got {num_present} of an unknown number of frames: the file breaks off")
    if errors or selector.num_matched < selector.num_targets:
        notes.append(
            f"partial_decode: got {selector.num_matched} of {selector.num_targets} frames requested; "
            f"packets that failed: {errors.failed_packets}, "
            f"decoded pictures that are damaged: {errors.corrupt_frames}"
        )
    return tuple(notes)
