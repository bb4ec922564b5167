"""Decoded frames to upright RGB pictures of the wanted size, in worker threads while the decoder goes on.

FFmpeg, NumPy and Pillow let go of Python's lock while they work. How many frames wait is bounded by their pixels,
so large ones wait for each other. The arithmetic is that of pictures: full-size RGB, then Pillow's bicubic.
Leaves out which frames (decode.py) and where they go (pixels.FrameStack). Called by decode.py and gop_decode.py.
"""

from __future__ import annotations

import os
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor

from av.video.frame import VideoFrame
from PIL import Image as pil

from pvc.media.orientation import frame_orientation
from pvc.media.pixels import FrameStack

WORKERS = min(4, os.cpu_count() or 1)

# A pixel costs about 12 bytes on its way: the decoder's, RGB, its turned copy and Pillow's. Eight frames of 1080p.
_MOST_PIXELS = 16_777_216


class Resizer:
    """Puts frames into places of `stack`. A context; at its end, what has not begun is dropped.

    `workers`: 0 converts each frame at once. Whatever a conversion raises comes out of a later `put` or of `finish`.
    """

    def __init__(self, stack: FrameStack, workers: int) -> None:
        self._stack = stack
        self._workers = workers
        self._pool = ThreadPoolExecutor(workers, "pvc-resize") if workers else None
        self._pending: deque[Future[None]] = deque()

    def __enter__(self) -> Resizer:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def append(self, frame: VideoFrame, timestamp: float) -> None:
        """Put `frame`, shown from `timestamp` (seconds) on, into the next place.

        Raises as `FrameStack.reserve`, and what PyAV raises; without workers there is no place then.
        """
        if self._pool is None:
            self._stack.add(upright_rgb(frame), timestamp)
        else:
            self._submit(self._stack.reserve(upright_size(frame), timestamp), frame)

    def put(self, place: int, frame: VideoFrame) -> None:
        """Put `frame` into `place`. Raises as `append`. Without workers, from any number of threads."""
        self._stack.expect(upright_size(frame))
        if self._pool is None:
            self._stack.fill(place, upright_rgb(frame))
        else:
            self._submit(place, frame)

    def finish(self) -> None:
        """Wait until every frame is in its place. Raises what PyAV raises."""
        while self._pending:
            self._pending.popleft().result()

    def _submit(self, place: int, frame: VideoFrame) -> None:
        assert self._pool is not None
        room = min(2 * self._workers, max(1, _MOST_PIXELS // (frame.width * frame.height)))
        while len(self._pending) >= room:
            self._pending.popleft().result()
        self._pending.append(self._pool.submit(lambda: self._stack.fill(place, upright_rgb(frame))))


def upright_rgb(frame: VideoFrame) -> pil.Image:
    """The frame as RGB, 8 bits, turned and mirrored as it is to be shown."""
    return pil.fromarray(frame_orientation(frame).apply(frame.to_ndarray(format="rgb24")))


def upright_size(frame: VideoFrame) -> tuple[int, int]:
    """(height, width) of `upright_rgb`, without converting."""
    width, height = frame_orientation(frame).size(frame.width, frame.height)
    return height, width
