"""Frames one at a time, as they come: from a file, from a folder that fills up, from a camera.

Nothing here waits for a frame's time to come; whoever plays a file at its own speed does (`pvc stream`). Leaves out
everything that holds a whole video in memory (video.py). Limits of a file apply, but for the number of frames:
only one is held.
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
from pvc.media.source import open_source

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

Frame: TypeAlias = "tuple[NDArray[np.uint8], float]"
"""uint8 (H, W, 3), RGB, upright, and the time it is shown at, in seconds since the beginning."""

PICTURES = frozenset((".png", ".jpg", ".jpeg", ".webp", ".bmp"))
SETTLED_S = 0.2  # a file that has not changed for so long is taken to be written
_STEP_S = 0.001  # between pictures of a folder with the same time
_ALL = 2**31 - 1


def video_frames(
    path: str | Path, fps: float | None = None, size: tuple[int, int] | None = None, limits: Limits = DEFAULT_LIMITS
) -> Iterator[Frame]:
    """Frames of a video file in the order they are shown, decoded as they are asked for.

    fps: at most so many a second (those on display at 0, 1/fps, ...), by default all of them. size: (height, width).

    Raises:
        UsageError: fps is no positive number.
        MediaError, ForbiddenError: a file that is refused, or cannot be decoded at all. A damaged packet costs its own
            frames.
    """
    if fps is not None and not (is_number(fps) and fps > 0):
        raise UsageError(f"fps must be a positive number, not {fps!r}")
    from pvc.media.container import AV_ERRORS, open_container, pick_stream, read_timeline
    from pvc.media.decode import FrameSelector
    from pvc.media.decode_plan import PacketIndex
    from pvc.media.decoder import configure_decoder
    from pvc.media.resizing import upright_rgb

    endless = replace(limits, max_frames=_ALL)
    with open_source(str(path), limits) as source:
        if source.format.kind != "video":
            raise MediaError(f"{source.name} is no video", code="unsupported_format")
        with open_container(source) as container:
            stream = pick_stream(container, source.name, limits)
            timeline = read_timeline(source, container, stream, limits, PacketIndex(stream))
        wanted = Sampling(fps=fps) if fps is not None else Sampling(frames=_ALL)
        indices, _ = choose(timeline.times, timeline.duration, wanted, endless, timeline.slack)
        ready: list[tuple[VideoFrame, float]] = []

        def pictures() -> Iterator[Frame]:
            for frame, at in ready:
                picture = upright_rgb(frame)
                yield np.asarray(resize(picture, size or (picture.height, picture.width))), at
            ready.clear()

        targets = [timeline.ticks[i] for i in indices]
        picker = FrameSelector(targets, timeline, lambda frame, at: ready.append((frame, at)))
        shown = 0
        with open_container(source) as container:
            stream = pick_stream(container, source.name, limits)
            configure_decoder(stream, limits.max_pixels, 1)
            for packet in container.demux(stream):
                try:
                    for frame in packet.decode():
                        limits.check_size(frame.width, frame.height, source.name)
                        picker.offer(frame)
                except AV_ERRORS:
                    picker.skip()
                shown += len(ready)
                yield from pictures()
                if picker.done:
                    break
        picker.finish()
        shown += len(ready)
        yield from pictures()
        if not shown:
            raise MediaError(f"{source.name}: no frame of the video could be decoded", code="no_video_frames")


class Folder:
    """Pictures of a folder, in the order of their names, each once, as soon as it is written.

    A picture's time is when it was last written, counted from the first one's. A file that is still growing waits; one
    that stays unreadable is named in `refused` and passed over.
    """

    def __init__(self, path: str | Path, limits: Limits = DEFAULT_LIMITS) -> None:
        self.path = Path(path)
        if not self.path.is_dir():
            raise MediaError(f"{path}: no such folder", code="not_found")
        self.limits = limits
        self.refused: list[str] = []
        self._seen: set[str] = set()
        self._begin: float | None = None
        self._last = -_STEP_S

    def new(self) -> Iterator[Frame]:
        """Pictures that have come since the last call."""
        now = time.time()
        for path in sorted(self.path.iterdir()):
            if path.name in self._seen or path.suffix.lower() not in PICTURES:
                continue
            try:
                written = path.lstat().st_mtime
            except FileNotFoundError:  # taken away again
                continue
            if now - written < SETTLED_S:
                continue
            self._seen.add(path.name)
            try:
                picture = load_image(str(path), self.limits)
            except (MediaError, ForbiddenError) as error:
                self.refused.append(str(error))
                continue
            if self._begin is None:
                self._begin = written
            # Names give the order; a file that was written earlier than the one before it comes right after it.
            self._last = max(written - self._begin, self._last + _STEP_S)
            yield np.asarray(picture.image), self._last


def camera_frames(path: str | Path, fps: float | None = None, size: tuple[int, int] | None = None) -> Iterator[Frame]:
    """Frames of a camera (a Video4Linux device such as /dev/video0), as they come; late ones are dropped.

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
        raise ForbiddenError(f"{path} is no camera")
    import av

    from pvc.media.resizing import upright_rgb

    try:
        with av.open(str(path), format="v4l2") as container:
            begin: float | None = None
            due = 0.0
            for frame in container.decode(video=0):
                at = time.monotonic() if frame.time is None else float(frame.time)
                begin = at if begin is None else begin
                if fps is not None and at - begin < due:
                    continue
                due = at - begin + (1 / fps if fps is not None else 0.0)
                picture = upright_rgb(frame)
                yield np.asarray(resize(picture, size or (picture.height, picture.width))), at - begin
    except av.FFmpegError as error:
        raise MediaError(f"{path}: the camera cannot be read: {error}") from error


__all__ = ["PICTURES", "Folder", "Frame", "camera_frames", "video_frames"]
