"""Decodes the chosen frames of a video: the groups of packets that hold them, or one pass over every packet.

Intact videos are decoded as `decode_plan.py` says. At the first sign of damage every packet is decoded by several
threads, and a damaged video once more on one, because FFmpeg's repairs depend on its threads. A damaged packet costs
its own pictures and not the rest. Leaves out which frames to choose (`sampling.py`), resizing (`resizing.py`) and the
limits of a file (`source.py`). Called by `video.py`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from av.video.frame import VideoFrame

from pvc.errors import MediaError
from pvc.media.container import AV_ERRORS, Timeline, broken, open_container, pick_stream, read_timeline
from pvc.media.decode_plan import PacketIndex, plan
from pvc.media.decoder import DecodeErrors, configure_decoder
from pvc.media.gop_decode import GopDecoder
from pvc.media.limits import Deadline, Limits
from pvc.media.pixels import FrameStack
from pvc.media.resizing import WORKERS, Resizer
from pvc.media.sampling import Sampling, choose
from pvc.media.source import Source
from pvc.media.types import Video

# More threads hold more pictures in memory and gain little on what is asked for here.
_THREADS = min(4, os.cpu_count() or 1)


def read_video(source: Source, sampling: Sampling, size: tuple[int, int] | None, limits: Limits) -> Video:
    """The frames of an open video that `sampling` picks. Raises MediaError and UsageError as `load_video` does."""
    sampling.check(limits, source.name)
    with open_container(source) as container:
        stream = pick_stream(container, source.name, limits)
        packets = PacketIndex(stream)
        timeline = read_timeline(source, container, stream, limits, packets)
        index = stream.index
    indices, warnings = choose(timeline.times, timeline.duration, sampling, limits, timeline.slack)
    targets = [timeline.ticks[i] for i in indices]
    deadline = Deadline(limits, source.name)
    stack = FrameStack(len(targets), size, limits, source.name)
    notes: tuple[str, ...] = ()
    gops = None if timeline.cut or timeline.lost or timeline.in_order else plan(packets, targets)
    if gops and GopDecoder(source, index, gops, targets, packets.ticks[0], limits, deadline).fill(
        stack, _THREADS, WORKERS
    ):
        stack.timestamps = [timeline.seconds(tick) for tick in targets]
    else:
        del packets, gops, stack  # before the next one is allocated
        stack, notes = _forward(source, index, targets, timeline, size, limits, deadline)
    return Video(
        stack.frames(),
        tuple(stack.timestamps),
        timeline.duration,
        source.name,
        source.format.name,
        warnings + notes + stack.warnings(),
        len(timeline.ticks),
    )


def _forward(
    source: Source,
    index: int,
    targets: Sequence[int],
    timeline: Timeline,
    size: tuple[int, int] | None,
    limits: Limits,
    deadline: Deadline,
) -> tuple[FrameStack, tuple[str, ...]]:
    """The frames at `targets` (ticks) out of a pass over every packet, and warnings about what is missing."""
    for threads, workers in ((_THREADS, WORKERS), (1, 0)):
        stack = FrameStack(len(targets), size, limits, source.name)
        with Resizer(stack, workers) as resizer:
            picker = FrameSelector(targets, timeline, resizer.append)
            damage = _decode(source, index, picker, limits, threads, deadline)
            try:
                resizer.finish()
            except AV_ERRORS as error:
                damage.note(error)
        if not damage:
            break
    if not len(stack):
        raise _nothing(source, damage) from damage.first
    return stack, _account(picker, damage, timeline)


class FrameSelector:
    """Gives each target its frame: its own, or the latest one before it when its own never comes.

    `targets`: presentation times in ticks, sorted. `keep` is handed each picked frame and its time in seconds.
    Holds one decoded frame.
    """

    def __init__(self, targets: Sequence[int], timeline: Timeline, keep: Callable[[VideoFrame, float], None]) -> None:
        self.got = 0
        self.asked = len(targets)
        self._targets = list(reversed(targets))
        self._timeline = timeline
        self._hand_on = keep
        self._count = 0
        self._latest: VideoFrame | None = None
        self._latest_tick = timeline.ticks[0] - 1
        self._kept_tick = self._latest_tick

    @property
    def done(self) -> bool:
        return not self._targets

    def offer(self, frame: VideoFrame) -> None:
        """Take the next decoded frame, in the order in which the decoder puts them out."""
        tick = self._tick(frame)
        self._count += 1
        while self._targets and self._targets[-1] < tick:
            self._fall_back()
        if tick > self._latest_tick:
            self._latest, self._latest_tick = frame, tick
        if self._targets and self._targets[-1] == tick == self._latest_tick:
            self._targets.pop()
            self._keep()
            self.got += 1

    def skip(self) -> None:
        """A packet failed: where frames are only counted, one is missing now."""
        self._count += 1

    def finish(self) -> None:
        """No more frames will come."""
        while self._targets:
            self._fall_back()

    def _tick(self, frame: VideoFrame) -> int:
        ticks = self._timeline.ticks
        if not self._timeline.in_order:
            if frame.pts is not None:
                return frame.pts
            if frame.dts is not None:
                return frame.dts
        return ticks[min(self._count, len(ticks) - 1)]

    def _fall_back(self) -> None:
        self._targets.pop()
        if self._latest is None:
            return
        # The second field of an interlaced picture is a packet with a time of its own, but no picture of its own.
        self.got += self._latest.interlaced_frame
        if self._latest_tick > self._kept_tick:
            self._keep()

    def _keep(self) -> None:
        assert self._latest is not None
        self._kept_tick = self._latest_tick
        self._hand_on(self._latest, self._timeline.seconds(self._latest_tick))


def _decode(
    source: Source, index: int, picker: FrameSelector, limits: Limits, threads: int, deadline: Deadline
) -> DecodeErrors:
    """One pass over the packets of stream `index`, up to the last target, or on several threads to the first damage."""
    damage = DecodeErrors()
    with open_container(source) as container:
        stream = pick_stream(container, source.name, limits)
        assert stream.index == index
        configure_decoder(stream, limits.max_pixels, threads)
        try:
            for packet in container.demux(stream):
                deadline.check()
                try:
                    for frame in packet.decode():
                        damage.flagged += frame.is_corrupt
                        limits.check_size(frame.width, frame.height, source.name)
                        picker.offer(frame)
                except AV_ERRORS as error:
                    damage.note(error)
                    picker.skip()
                if picker.done or (damage and threads > 1):
                    break
        except AV_ERRORS as error:
            damage.note(error)
    picker.finish()
    return damage


def _nothing(source: Source, damage: DecodeErrors) -> MediaError:
    if damage.first is not None:
        return broken(source.name, damage.first)
    return MediaError(f"{source.name}: no frame of the video could be decoded", code="no_video_frames")


def _account(picker: FrameSelector, damage: DecodeErrors, timeline: Timeline) -> tuple[str, ...]:
    """The warnings about frames that are missing or damaged."""
    notes: list[str] = []
    there = len(timeline.ticks)
    if timeline.lost:
        notes.append(f"partial_decode: got {there} of {there + timeline.lost} frames: the file is cut short")
    elif timeline.cut:
        notes.append(f"partial_decode: got {there} of an unknown number of frames: the file breaks off")
    if damage or picker.got < picker.asked:
        notes.append(
            f"partial_decode: got {picker.got} of {picker.asked} frames asked for; packets that failed: "
            f"{damage.failed}, decoded pictures that are damaged: {damage.flagged}"
        )
    return tuple(notes)
