"""Convert decoded frames to upright RGB of the requested size, in worker threads while the decoder continues.

FFmpeg, NumPy and Pillow release the GIL while they work. The pixels of the pending frames are bounded, so large frames
wait for each other. The arithmetic is that of still pictures: full-size RGB, then Pillow's bicubic filter.
Called by decode.py, gop_decode.py and live.py.
"""

from __future__ import annotations

import os
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor

from av.video.frame import VideoFrame
from PIL import Image as pil

from pvc.media.orientation import get_frame_orientation
from pvc.media.pixels import FrameStack

WORKERS = min(4, os.cpu_count() or 1)

# A pixel takes about 12 bytes: decoder, RGB, rotated copy, Pillow. This is eight frames of 1080p.
_MAX_PENDING_PIXELS = 16_777_216


class Resizer:
    """Converts frames into slots of a FrameStack.

    As a context manager, it drops conversions that have not begun at its end. If a conversion fails, a later `put`,
    `append` or `finish` raises its error.

    Args:
        stack: where the frames go.
        workers: worker threads; 0 converts each frame at once in the calling thread.
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
        """Convert `frame` into the next slot.

        Args:
            frame: the decoded frame.
            timestamp: seconds at which it is displayed.

        Raises:
            MediaError: as `FrameStack.reserve`. PyAV's errors are raised too; without workers no slot is taken then.
        """
        if self._pool is None:
            self._stack.add(to_upright_rgb(frame), timestamp)
        else:
            self._submit(self._stack.reserve(get_upright_size(frame), timestamp), frame)

    def put(self, index: int, frame: VideoFrame) -> None:
        """Convert `frame` into the slot `index`. Without workers, several threads may call this at a time.

        Args:
            index: number of the slot.
            frame: the decoded frame.

        Raises:
            MediaError: as `append`.
        """
        self._stack.expect(get_upright_size(frame))
        if self._pool is None:
            self._stack.fill(index, to_upright_rgb(frame))
        else:
            self._submit(index, frame)

    def finish(self) -> None:
        """Wait until every frame is in its slot. Raises PyAV's errors."""
        while self._pending:
            self._pending.popleft().result()

    def _submit(self, index: int, frame: VideoFrame) -> None:
        assert self._pool is not None
        max_pending = min(2 * self._workers, max(1, _MAX_PENDING_PIXELS // (frame.width * frame.height)))
        while len(self._pending) >= max_pending:
            self._pending.popleft().result()
        self._pending.append(self._pool.submit(lambda: self._stack.fill(index, to_upright_rgb(frame))))


def to_upright_rgb(frame: VideoFrame) -> pil.Image:
    """Convert a frame to RGB, 8 bits, rotated and mirrored for display."""
    return pil.fromarray(get_frame_orientation(frame).apply(frame.to_ndarray(format="rgb24")))


def get_upright_size(frame: VideoFrame) -> tuple[int, int]:
    """Return (height, width) of `to_upright_rgb` without converting."""
    width, height = get_frame_orientation(frame).apply_to_size(frame.width, frame.height)
    return height, width
