"""What a medium will be once it is loaded: its kind, its size, and which frames a Sampling picks. Nothing is decoded.

Files are judged by the code that loads them (headers, blocks, packets), so that the number of frames is exact also
where frames come at uneven times. Leaves out what that costs (pvc.engine.budget, which calls this) and damage that only
decoding brings to light: then there are fewer frames, never more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from pvc.errors import UsageError
from pvc.media.animation import is_animation, read_times
from pvc.media.image import PILLOW_ERRORS, orientation
from pvc.media.limits import DEFAULT_LIMITS, Limits
from pvc.media.probe import probe
from pvc.media.sampling import SLACK, Sampling, choose
from pvc.media.source import Source, is_file_source, open_source
from pvc.media.types import UNTIMED_FPS, Picture, Video


@dataclass(frozen=True)
class MediaOutline:
    """One medium before it is loaded.

    `width` and `height`: pixels as they are shown, of a picture as it is decoded; 0 where only pixels would tell.
    `times`: of every frame of a video, seconds since the first; empty for a picture. `duration`: seconds, or None.
    `slack`: as in `choose`. `loaded`: whether it is a Picture or Video already, which is taken as it is.
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
        """Times of the frames that `sampling` picks. Raises UsageError and MediaError as `choose` does."""
        sampling.check(limits, self.name)
        indices, _ = choose(self.times, self.duration, sampling, limits, self.slack)
        return [self.times[index] for index in indices]


def outline(source: Any, limits: Limits = DEFAULT_LIMITS) -> MediaOutline:
    """The Outline of anything that `load` takes.

    Raises MediaError and ForbiddenError for files as `probe` does, and UsageError for values that are no pixels.
    """
    if isinstance(source, Picture):
        return MediaOutline("image", source.name, source.image.width, source.image.height, loaded=True)
    if isinstance(source, Video):
        return _video(source)
    if is_file_source(source):
        with open_source(source, limits) as opened:
            if opened.format.kind == "video":
                return _video_file(opened, limits)
            if is_animation(opened):
                times, duration = read_times(opened, limits)
                return MediaOutline("video", opened.name, times=tuple(times), duration=duration)
            name = opened.name
        info = probe(source, limits)
        return MediaOutline("image", name, info.width, info.height)
    return _value(source)


def _video(video: Video) -> MediaOutline:
    start, (height, width) = video.timestamps[0], video.frames.shape[1:3]
    times = tuple(time - start for time in video.timestamps)
    duration = None if video.duration is None else max(video.duration - start, times[-1])
    return MediaOutline("video", video.name, width, height, times, duration, loaded=True)


def _video_file(source: Source, limits: Limits) -> MediaOutline:
    from pvc.media.container import open_container, pick_stream, read_timeline, shown_size

    with open_container(source) as container:
        stream = pick_stream(container, source.name, limits)
        timeline = read_timeline(source, container, stream, limits)
        width, height = shown_size(source, container, stream)
    times = tuple(timeline.times)
    return MediaOutline("video", source.name, width, height, times, timeline.duration, timeline.slack)


def _value(value: Any) -> MediaOutline:
    """Pixels in memory: what `load` makes of them, by type and shape alone."""
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
        sideways = orientation(value) >= 5
    except PILLOW_ERRORS:
        sideways = False
    width, height = value.size[::-1] if sideways else value.size
    return MediaOutline("image", "<PIL picture>", width, height)


__all__ = ["MediaOutline", "outline"]
