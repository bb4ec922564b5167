"""Decodes the picked frames of a video in one forward pass, packet by packet.

A damaged packet costs its own pictures and not the rest. Several threads decode sound videos; damaged ones
are decoded again on one, because how FFmpeg patches up damage depends on its threads. Leaves out which
frames to pick (sampling.py) and the limits of a file (source.py). Called by video.py.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from PIL import Image as pil

from pvc.errors import MediaError

from .container import AV_ERRORS, Timeline, broken, open_container, pick_stream, read_timeline
from .limits import Deadline, Limits
from .pixels import FrameStack
from .sampling import SLACK, Sampling, choose
from .source import Source
from .types import Video

# More threads hold more pictures in memory and gain little on what is asked for here.
_THREADS = min(4, os.cpu_count() or 1)

# Matroska rounds times to milliseconds. Half of that late still counts as on display, or every third frame of a
# video at 30 frames a second would be missed when asking for 30 frames a second.
_LARGEST_ROUNDING = 0.0005


@dataclass
class Damage:
    """What went wrong in one pass: packets that failed, pictures the decoder flagged, and the first error."""

    failed: int = 0
    flagged: int = 0
    first: BaseException | None = None

    def __bool__(self) -> bool:
        return bool(self.failed or self.flagged)

    def note(self, error: BaseException) -> None:
        self.failed += 1
        self.first = self.first or error


def read_video(source: Source, sampling: Sampling, size: tuple[int, int] | None, limits: Limits) -> Video:
    """The frames of an open video that `sampling` picks. Raises MediaError and UsageError as `load_video` does."""
    sampling.check(limits, source.name)
    with open_container(source) as container:
        stream = pick_stream(container, source.name, limits)
        index = stream.index
        timeline = read_timeline(source, container, stream, limits)
    seconds = [timeline.seconds(tick) for tick in timeline.ticks]
    slack = SLACK + min(float(timeline.unit) / 2, _LARGEST_ROUNDING)
    indices, warnings = choose(seconds, timeline.duration, sampling, limits, slack)
    targets = [timeline.ticks[i] for i in indices]
    deadline = Deadline(limits, source.name)
    for threads in (_THREADS, 1):
        stack = FrameStack(len(targets), size, limits, source.name)
        picker = Picker(targets, timeline, stack)
        damage = _decode(source, index, picker, limits, threads, deadline)
        if not damage:
            break
    if not len(stack):
        raise _nothing(source, damage) from damage.first
    return Video(
        stack.frames(),
        tuple(stack.timestamps),
        timeline.duration,
        source.name,
        source.format.name,
        warnings + _account(picker, damage, timeline) + stack.warnings(),
        len(timeline.ticks),
    )


class Picker:
    """Gives each target its frame: its own, or the latest one before it when its own never comes.

    `targets`: presentation times in ticks, sorted. Holds one decoded frame besides those in `stack`.
    """

    def __init__(self, targets: Sequence[int], timeline: Timeline, stack: FrameStack) -> None:
        self.got = 0
        self.asked = len(targets)
        self._targets = list(reversed(targets))
        self._timeline = timeline
        self._stack = stack
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
        self._stack.add(_upright_rgb(self._latest), self._timeline.seconds(self._latest_tick))


def _decode(source: Source, index: int, picker: Picker, limits: Limits, threads: int, deadline: Deadline) -> Damage:
    """One pass over the packets of stream `index`, up to the last target, or on several threads to the first damage."""
    damage = Damage()
    with open_container(source) as container:
        stream = pick_stream(container, source.name, limits)
        assert stream.index == index
        _prepare(stream, limits, threads)
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


def _prepare(stream: VideoStream, limits: Limits, threads: int) -> None:
    context = stream.codec_context
    context.options = {"max_pixels": str(limits.max_pixels)}
    if context.codec.canonical_name == "h264":
        # Opening decoded nothing, so the decoder has not yet seen how far pictures are reordered. Strict, it goes
        # by what the stream's level allows, and not by a guess that loses the first pictures when it is too low.
        context.options["strict"] = "1"
    context.thread_type = "AUTO"
    context.thread_count = threads


def _upright_rgb(frame: VideoFrame) -> pil.Image:
    rgb = frame.to_ndarray(format="rgb24")
    # FFmpeg reports the turn, counterclockwise, and leaves it to us.
    quarters = round(frame.rotation / 90) % 4
    return pil.fromarray(np.ascontiguousarray(np.rot90(rgb, quarters)))


def _nothing(source: Source, damage: Damage) -> MediaError:
    if damage.first is not None:
        return broken(source.name, damage.first)
    return MediaError(f"{source.name}: no frame of the video could be decoded", code="no_video_frames")


def _account(picker: Picker, damage: Damage, timeline: Timeline) -> tuple[str, ...]:
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
