"""Describe what a medium will be once it is loaded: its kind, its size, and the times of all its frames.

Nothing is decoded. Files are read by the code that loads them (headers, blocks, packets), so the number of frames is
exact even if frames come at uneven times. Damage that only decoding reveals makes the result smaller, never larger.
Called by pvc.engine.budget and the command line.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from pvc.errors import UsageError
from pvc.media.animation import is_animation, read_times
from pvc.media.image import PILLOW_ERRORS, read_orientation
from pvc.media.limits import DEFAULT_LIMITS, Limits
from pvc.media.probe import probe
from pvc.media.sampling import SLACK, Sampling, choose
from pvc.media.source import Source, is_file_source, open_source
from pvc.media.types import UNTIMED_FPS, Picture, Video


@dataclass(frozen=True)
class MediaOutline:
    """Properties of one medium before it is loaded.

    Attributes:
        kind: "image" or "video".
        name: file name for messages.
        width: pixels as displayed, of a picture as it is decoded; 0 if only decoding would tell.
        height: pixels, like `width`.
        times: seconds since the first frame, of every frame of a video; empty for a picture.
        duration: seconds, or None if unknown.
        slack: seconds, as in `choose`.
        loaded: whether the medium is already a Picture or Video, which is used unchanged.
    """

    kind: Literal["image", "video"]
    name: str
    width: int = 0
    height: int = 0
    times: tuple[float, ...] = field(default=(), repr=False)
    duration: float | None = None
    slack: float = SLACK
    loaded: bool = False

    def picked(self, sampling: Sampling, limits: Limits = DEFAULT_LIMITS) -> list[float]:
        """Return the times of the frames that `sampling` picks.

        Args:
            sampling: which frames to take.
            limits: `max_frames` bounds the result.

        Returns:
            Seconds since the first frame.

        Raises:
            UsageError: as in `choose`.
            MediaError: as in `choose`.
        """
        sampling.check(limits, self.name)
        indices, _ = choose(self.times, self.duration, sampling, limits, self.slack)
        return [self.times[index] for index in indices]


def outline(source: Any, limits: Limits = DEFAULT_LIMITS) -> MediaOutline:
    """Describe anything that `load` accepts, without decoding.

    Args:
        source: path, bytes, pixels, Picture or Video.
        limits: bounds on a file.

    Raises:
        MediaError: as in `probe`.
        ForbiddenError: as in `probe`.
        UsageError: a value that is not pixels.
    """
    if isinstance(source, Picture):
        return MediaOutline("image", source.name, source.image.width, source.image.height, loaded=True)
    if isinstance(source, Video):
        return _outline_video(source)
    if is_file_source(source):
        with open_source(source, limits) as media_file:
            if media_file.format.kind == "video":
                return _outline_video_file(media_file, limits)
            if is_animation(media_file):
                times, duration = read_times(media_file, limits)
                return MediaOutline("video", media_file.name, times=tuple(times), duration=duration)
            name = media_file.name
        info = probe(source, limits)
        return MediaOutline("image", name, info.width, info.height)
    return _outline_value(source)


def _outline_video(video: Video) -> MediaOutline:
    start, (height, width) = video.timestamps[0], video.frames.shape[1:3]
    times = tuple(time - start for time in video.timestamps)
    duration = None if video.duration is None else max(video.duration - start, times[-1])
    return MediaOutline("video", video.name, width, height, times, duration, loaded=True)


def _outline_video_file(source: Source, limits: Limits) -> MediaOutline:
    from pvc.media.container import get_display_size, open_container, pick_stream, read_timeline

    with open_container(source) as container:
        stream = pick_stream(container, source.name, limits)
        timeline = read_timeline(source, container, stream, limits)
        width, height = get_display_size(source, container, stream)
    times = tuple(timeline.times)
    return MediaOutline("video", source.name, width, height, times, timeline.duration, timeline.slack)


def _outline_value(value: Any) -> MediaOutline:
    """Describe pixels in memory by type and shape alone, as `load` would load them."""
    is_pil = type(value).__module__.partition(".")[0] == "PIL"
    if isinstance(value, Sequence) or (not is_pil and np.ndim(value) == 4):
        count = len(value)
        if not count:
            raise UsageError("a video needs at least one frame")
        return MediaOutline(
            "video",
            "<frames>",
            times=tuple(index / UNTIMED_FPS for index in range(count)),
            duration=count / UNTIMED_FPS,
        )
    if not is_pil:
        if np.ndim(value) not in (2, 3):
            raise UsageError(f"cannot read a picture or a video from a {type(value).__name__}")
        return MediaOutline("image", "<array>", np.shape(value)[1], np.shape(value)[0])
    try:
        is_rotated = read_orientation(value) >= 5
    except PILLOW_ERRORS:
        is_rotated = False
    width, height = value.size[::-1] if is_rotated else value.size
    return MediaOutline("image", "<PIL picture>", width, height)


__all__ = ["MediaOutline", "outline"]
