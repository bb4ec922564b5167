"""Read frames one at a time: from a video file, from a folder that is being filled, or from a camera.

Frames are returned as soon as they are decoded. Playing a file at its natural speed is up to the caller (`pvc live`).
The limits of a file apply, except for the number of frames: only one frame is in memory. Called by the command line.
"""

from __future__ import annotations

import stat
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pvc.errors import ForbiddenError, MediaError, UsageError
from pvc.media.image import load_image
from pvc.media.limits import DEFAULT_LIMITS, Limits
from pvc.media.pixels import resize
from pvc.media.sampling import Sampling, choose, is_number
from pvc.media.source import Source, open_source

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

    from pvc.media.container import Timeline

Frame: TypeAlias = "tuple[NDArray[np.uint8], float]"
"""uint8 (H, W, 3), RGB, upright, and the time at which it is displayed, in seconds since the beginning."""

PICTURES = frozenset((".png", ".jpg", ".jpeg", ".webp", ".bmp"))
SETTLED_S = 0.2  # seconds; a file that has not changed for longer is complete
_MIN_STEP_S = 0.001  # seconds between pictures of a folder with the same time
_NO_LIMIT = 2**31 - 1


def video_frames(
    path: str | Path, fps: float | None = None, size: tuple[int, int] | None = None, limits: Limits = DEFAULT_LIMITS
) -> Iterator[Frame]:
    """Decode the frames of a video file in display order, each when the iterator requests it.

    Args:
        path: the video file.
        fps: frames per second, those on display at 0, 1/fps, ...; None for all frames.
        size: (height, width) in pixels to which frames are resized.
        limits: bounds on the file; `max_frames` is ignored.

    Yields:
        Frame: uint8 (H, W, 3), and seconds since the start.

    Raises:
        UsageError: `fps` is not a positive number.
        MediaError: the file is rejected or no frame can be decoded. A damaged packet costs only its frames.
        ForbiddenError: a URL, or not a regular file.
    """
    if fps is not None and not (is_number(fps) and fps > 0):
        raise UsageError(f"fps must be a positive number, not {fps!r}")
    from pvc.media.container import AV_ERRORS, open_container, pick_stream
    from pvc.media.decode import FrameSelector
    from pvc.media.decoder import configure_decoder
    from pvc.media.resizing import to_upright_rgb

    with open_source(str(path), limits) as source:
        if source.format.kind != "video":
            raise MediaError(f"{source.name} is not a video", code="unsupported_format")
        timeline, targets = _choose_targets(source, fps, limits)
        ready_frames: list[tuple[VideoFrame, float]] = []

        def take_ready() -> Iterator[Frame]:
            for frame, seconds in ready_frames:
                picture = to_upright_rgb(frame)
                yield np.asarray(resize(picture, size or (picture.height, picture.width))), seconds
            ready_frames.clear()

        selector = FrameSelector(targets, timeline, lambda frame, seconds: ready_frames.append((frame, seconds)))
        num_frames = 0
        with open_container(source) as container:
            stream = pick_stream(container, source.name, limits)
            configure_decoder(stream, limits.max_pixels, 1)
            for packet in container.demux(stream):
                try:
                    for frame in packet.decode():
                        limits.check_size(frame.width, frame.height, source.name)
                        selector.offer(frame)
                except AV_ERRORS:
                    selector.skip()
                num_frames += len(ready_frames)
                yield from take_ready()
                if selector.is_done:
                    break
        selector.finish()
        num_frames += len(ready_frames)
        yield from take_ready()
        if not num_frames:
            raise MediaError(f"{source.name}: no frame of the video could be decoded", code="no_video_frames")


def _choose_targets(source: Source, fps: float | None, limits: Limits) -> tuple[Timeline, list[int]]:
    """Read the times of an open video. Return them, and the pts of the frames to decode."""
    from pvc.media.container import open_container, pick_stream, read_timeline
    from pvc.media.decode_plan import PacketIndex

    unlimited = replace(limits, max_frames=_NO_LIMIT)
    with open_container(source) as container:
        stream = pick_stream(container, source.name, limits)
        timeline = read_timeline(source, container, stream, limits, PacketIndex(stream))
    sampling = Sampling(fps=fps) if fps is not None else Sampling(frames=_NO_LIMIT)
    indices, _ = choose(timeline.times, timeline.duration, sampling, unlimited, timeline.slack)
    return timeline, [timeline.frame_pts[i] for i in indices]


class Folder:
    """Pictures of a folder in the order of their names, each once, as soon as it is written.

    The time of a picture is its modification time, counted from that of the first picture. If a file is still growing,
    it is read in a later call. If a file stays unreadable, it is skipped and listed in `refused`.

    Args:
        path: an existing folder.
        limits: bounds on each picture.

    Attributes:
        refused: error messages of the pictures that were skipped.

    Raises:
        MediaError: `not_found`, there is no such folder.
    """

    def __init__(self, path: str | Path, limits: Limits = DEFAULT_LIMITS) -> None:
        self.path = Path(path)
        if not self.path.is_dir():
            raise MediaError(f"{path}: no such folder", code="not_found")
        self.limits = limits
        self.refused: list[str] = []
        self._names: set[str] = set()
        self._start: float | None = None
        self._last = -_MIN_STEP_S

    def new(self) -> Iterator[Frame]:
        """Read the pictures that were added since the last call, with their times in seconds."""
        now = time.time()
        for path in sorted(self.path.iterdir()):
            if path.name in self._names or path.suffix.lower() not in PICTURES:
                continue
            try:
                modified = path.lstat().st_mtime
            except FileNotFoundError:  # removed in the meantime
                continue
            if now - modified < SETTLED_S:
                continue
            self._names.add(path.name)
            try:
                picture = load_image(str(path), self.limits)
            except (MediaError, ForbiddenError) as error:
                self.refused.append(str(error))
                continue
            if self._start is None:
                self._start = modified
            # The order is that of the names, so times must not decrease.
            self._last = max(modified - self._start, self._last + _MIN_STEP_S)
            yield np.asarray(picture.image), self._last


def camera_frames(path: str | Path, fps: float | None = None, size: tuple[int, int] | None = None) -> Iterator[Frame]:
    """Read the frames of a camera (a Video4Linux device such as /dev/video0) as they arrive; late frames are dropped.

    Args:
        path: the device.
        fps: maximum frames per second; None for all frames.
        size: (height, width) in pixels to which frames are resized.

    Yields:
        Frame: uint8 (H, W, 3), and seconds since the first frame.

    Raises:
        ForbiddenError: not a character device.
        MediaError: the camera cannot be opened, or stops.
    """
    path = Path(path)
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise MediaError(f"{path}: {error.strerror}", code="not_found") from error
    if not stat.S_ISCHR(mode):
        raise ForbiddenError(f"{path} is not a camera")
    import av

    from pvc.media.resizing import to_upright_rgb

    try:
        with av.open(str(path), format="v4l2") as container:
            start: float | None = None
            due = 0.0
            for frame in container.decode(video=0):
                seconds = time.monotonic() if frame.time is None else float(frame.time)
                start = seconds if start is None else start
                if fps is not None and seconds - start < due:
                    continue
                due = seconds - start + (1 / fps if fps is not None else 0.0)
                picture = to_upright_rgb(frame)
                yield np.asarray(resize(picture, size or (picture.height, picture.width))), seconds - start
    except av.FFmpegError as error:
        raise MediaError(f"{path}: the camera cannot be read: {error}") from error


__all__ = ["PICTURES", "Folder", "Frame", "camera_frames", "video_frames"]
