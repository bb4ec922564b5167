"""Decodes the groups of a plan, several at a time, each by a decoder of its own with one thread.

Decoders that share nothing use the cores better than the threads of one, and resize what they picked while the others
go on. What is not as the plan foresaw, down to the number of frames, ends the attempt: decode.py then takes every
packet. Leaves out plans (decode_plan.py) and damage, which is nothing but a reason to give up. Called by decode.py.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeAlias

from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from pvc.media.container import AV_ERRORS, open_container, pick_stream
from pvc.media.decode_plan import Gop
from pvc.media.decoder import configure_decoder
from pvc.media.limits import Deadline, Limits
from pvc.media.pixels import FrameStack
from pvc.media.resizing import Resizer
from pvc.media.source import Source, shared

_Batch: TypeAlias = "Callable[[], list[VideoFrame]]"

# A decoder keeps up to 17 frames of 1.5 bytes a pixel. Eight decoders of 1080p, two of 4K, one of anything larger.
_MOST_PIXELS = 16_777_216


@dataclass
class GopDecoder:
    """What is to be decoded, and what the decoders have in common.

    `index`: number of the stream. `targets`: ticks of the wanted frames, sorted. `first_tick`: that of the first
    packet. `slots`: which of `targets` are still to be found, and their places. `left`: groups that nobody has taken.
    """

    source: Source
    index: int
    gops: Sequence[Gop]
    targets: Sequence[int]
    first_tick: int
    limits: Limits
    deadline: Deadline
    slots: dict[int, int] = field(init=False)
    left: deque[Gop] = field(init=False)
    failed: threading.Event = field(init=False, default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.slots = {tick: slot for slot, tick in enumerate(self.targets)}
        self.left = deque(self.gops)

    def fill(self, stack: FrameStack, threads: int, workers: int) -> bool:
        """Put the wanted frames into `stack`, in order. False when anything is not as planned: `stack` is void then.

        `threads`: of all decoders together; `workers`: that resize for a decoder without company. Raises MediaError
        when time is up or the result is too large.
        """
        with open_container(self.source) as container:
            stream = pick_stream(container, self.source.name, self.limits)
            pixels = max(1, stream.width * stream.height)
        lanes = max(1, min(threads, len(self.gops), _MOST_PIXELS // pixels))
        if lanes == 1:
            with Resizer(stack, workers) as resizer:
                found = _Worker(self, resizer).run(self.source, threads, self.limits.max_pixels)
            return found == len(self.targets) and not stack.changed
        # The size was only declared, so each decoder is told what several of them can afford.
        most = min(self.limits.max_pixels, _MOST_PIXELS // lanes)
        with ThreadPoolExecutor(lanes, "pvc-decode") as pool, Resizer(stack, 0) as resizer:
            try:
                runs = [pool.submit(_Worker(self, resizer).run, view, 1, most) for view in shared(self.source, lanes)]
                found = sum(run.result() for run in runs)
            finally:
                self.failed.set()  # whatever stopped one decoder, or us, stops the others
        return found == len(self.targets) and not stack.changed


class _Worker:
    """One decoder that takes one group after the other, each behind the one before, until none is left."""

    def __init__(self, job: GopDecoder, resizer: Resizer) -> None:
        self._job = job
        self._resizer = resizer
        self._expected = 0
        self._has_start = False

    def run(self, source: Source, threads: int, max_pixels: int) -> int:
        """How many wanted frames were found; 0, and `job.failed` is set, after anything unforeseen."""
        job = self._job
        try:
            with open_container(source) as container:
                stream = pick_stream(container, source.name, job.limits)
                assert stream.index == job.index
                configure_decoder(stream, max_pixels, threads)
                found, frames = self._decode(container, stream)
                if frames == self._expected:
                    return found
        except AV_ERRORS:
            pass  # the pass over all packets will meet it again, and say so
        except BaseException:
            job.failed.set()
            raise
        job.failed.set()
        return 0

    def _decode(self, container: InputContainer, stream: VideoStream) -> tuple[int, int]:
        """(wanted frames, all frames) that came out; less of the latter than expected when something was unforeseen."""
        job, found, frames = self._job, 0, 0
        for decode in self._batches(container, stream):
            job.deadline.check()
            for frame in decode():
                # One field of a picture can be a packet of its own, which may have been left out.
                if job.failed.is_set() or frame.is_corrupt or frame.interlaced_frame:
                    return 0, -1
                frames += 1
                job.limits.check_size(frame.width, frame.height, job.source.name)
                if frame.pts is None or (frame.pts == job.first_tick and not self._has_start):
                    continue
                slot = job.slots.pop(frame.pts, None)
                if slot is not None:
                    self._resizer.put(slot, frame)
                    found += 1
        self._resizer.finish()
        return found, frames

    def _batches(self, container: InputContainer, stream: VideoStream) -> Iterator[_Batch]:
        """The calls that decode: of the first packet, which may hold what is said once, then of those of the groups."""
        context = stream.codec_context
        numbered = enumerate(packet for packet in container.demux(stream) if packet.size)
        while self._job.left:
            try:
                group = self._job.left.popleft()
            except IndexError:  # another decoder was faster
                break
            self._expected += group.frames
            last = group.first + len(group.take) - 1
            for number, packet in numbered:
                if number == 0 and group.first == 0:
                    self._has_start = True
                if number == 0 and group.first > 0:
                    self._expected += not packet.is_discard
                    yield packet.decode
                if number == group.first > 0 and group.opened:
                    yield context.decode
                    context.flush_buffers()
                if number >= group.first and group.take[number - group.first]:
                    yield packet.decode
                if number == last:
                    break
        yield context.decode
