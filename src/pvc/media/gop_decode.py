"""Decode the GOPs of a decode plan, several at a time, each with a single-threaded decoder.

Independent decoders use the cores better than the threads of one decoder, and each resizes its frames while the
others decode. If anything differs from the plan, down to the number of frames, the attempt ends and decode.py decodes
every packet. Damage is not handled here: it is a reason to give up. Called by decode.py.
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
from pvc.media.source import Source, open_views

_DecodeCall: TypeAlias = "Callable[[], list[VideoFrame]]"

# A decoder holds up to 17 frames of 1.5 bytes a pixel: eight decoders of 1080p, two of 4K, one of larger videos.
_MAX_DECODER_PIXELS = 16_777_216


@dataclass
class GopDecoder:
    """A decode plan, and the state that the decoders share.

    Attributes:
        source: the open video.
        stream_index: index of the video stream.
        gops: the decode plan.
        targets: pts of the requested frames, sorted.
        first_pts: pts of the first packet.
        limits: bounds on the file and the result.
        deadline: end of the time that decoding may take.
        slots: targets that are not decoded yet, and their slots in the result.
        pending_gops: GOPs that no decoder has taken yet.
        failed: set if anything differs from the plan.
    """

    source: Source
    stream_index: int
    gops: Sequence[Gop]
    targets: Sequence[int]
    first_pts: int
    limits: Limits
    deadline: Deadline
    slots: dict[int, int] = field(init=False)
    pending_gops: deque[Gop] = field(init=False)
    failed: threading.Event = field(init=False, default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.slots = {pts: slot for slot, pts in enumerate(self.targets)}
        self.pending_gops = deque(self.gops)

    def fill(self, stack: FrameStack, threads: int, workers: int) -> bool:
        """Decode the requested frames into `stack`, in order.

        Args:
            stack: where the frames go.
            threads: threads of all decoders together.
            workers: threads that resize if there is only one decoder.

        Returns:
            False if anything differs from the plan; `stack` is then unusable.

        Raises:
            MediaError: the time is up or the result is too large.
        """
        with open_container(self.source) as container:
            stream = pick_stream(container, self.source.name, self.limits)
            pixels = max(1, stream.width * stream.height)
        num_decoders = max(1, min(threads, len(self.gops), _MAX_DECODER_PIXELS // pixels))
        if num_decoders == 1:
            with Resizer(stack, workers) as resizer:
                num_found = _Worker(self, resizer).run(self.source, threads, self.limits.max_pixels)
            return num_found == len(self.targets) and not stack.size_changes
        # The size is only declared, so each decoder gets its share of the pixel limit.
        max_pixels = min(self.limits.max_pixels, _MAX_DECODER_PIXELS // num_decoders)
        with ThreadPoolExecutor(num_decoders, "pvc-decode") as pool, Resizer(stack, 0) as resizer:
            try:
                futures = [
                    pool.submit(_Worker(self, resizer).run, view, 1, max_pixels)
                    for view in open_views(self.source, num_decoders)
                ]
                num_found = sum(future.result() for future in futures)
            finally:
                self.failed.set()  # an error in one decoder, or here, stops the others
        return num_found == len(self.targets) and not stack.size_changes


class _Worker:
    """One decoder that takes one GOP after another, in the order of the file, until none is left."""

    def __init__(self, decoder: GopDecoder, resizer: Resizer) -> None:
        self._decoder = decoder
        self._resizer = resizer
        self._expected_frames = 0
        self._has_start = False

    def run(self, source: Source, threads: int, max_pixels: int) -> int:
        """Return the number of requested frames decoded; if anything is unexpected, set `failed` and return 0."""
        decoder = self._decoder
        try:
            with open_container(source) as container:
                stream = pick_stream(container, source.name, decoder.limits)
                assert stream.index == decoder.stream_index
                configure_decoder(stream, max_pixels, threads)
                num_found, frames = self._decode(container, stream)
                if frames == self._expected_frames:
                    return num_found
        except AV_ERRORS:
            pass  # decoding all packets will report it
        except BaseException:
            decoder.failed.set()
            raise
        decoder.failed.set()
        return 0

    def _decode(self, container: InputContainer, stream: VideoStream) -> tuple[int, int]:
        """Return the numbers of requested and of all decoded frames; the latter is -1 if anything is unexpected."""
        decoder, num_found, frames = self._decoder, 0, 0
        for decode in self._iter_decode_calls(container, stream):
            decoder.deadline.check()
            for frame in decode():
                # One field of a frame can be a separate packet, which may have been left out.
                if decoder.failed.is_set() or frame.is_corrupt or frame.interlaced_frame:
                    return 0, -1
                frames += 1
                decoder.limits.check_size(frame.width, frame.height, decoder.source.name)
                if frame.pts is None or (frame.pts == decoder.first_pts and not self._has_start):
                    continue
                slot = decoder.slots.pop(frame.pts, None)
                if slot is not None:
                    self._resizer.put(slot, frame)
                    num_found += 1
        self._resizer.finish()
        return num_found, frames

    def _iter_decode_calls(self, container: InputContainer, stream: VideoStream) -> Iterator[_DecodeCall]:
        """Iterate over the calls that decode: of the first packet, which may hold headers, then those of the GOPs."""
        context = stream.codec_context
        numbered = enumerate(packet for packet in container.demux(stream) if packet.size)
        while self._decoder.pending_gops:
            try:
                gop = self._decoder.pending_gops.popleft()
            except IndexError:  # another decoder took it
                break
            self._expected_frames += gop.frames
            last = gop.first + len(gop.decode_mask) - 1
            for number, packet in numbered:
                if number == 0 and gop.first == 0:
                    self._has_start = True
                if number == 0 and gop.first > 0:
                    self._expected_frames += not packet.is_discard
                    yield packet.decode
                if number == gop.first > 0 and gop.is_open:
                    yield context.decode
                    context.flush_buffers()
                if number >= gop.first and gop.decode_mask[number - gop.first]:
                    yield packet.decode
                if number == last:
                    break
        yield context.decode
