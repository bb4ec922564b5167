"""One entry for any source: decides whether it is a picture or a video, and loads it.

Files are judged by their first bytes, values in memory by their type and shape. Leaves out addresses:
pvc.server fetches those, with its own rules. Called by the command line, the engine and the server.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from pvc.errors import MediaError, UsageError
from pvc.media.animation import is_animation
from pvc.media.image import load_image, read_image
from pvc.media.limits import DEFAULT_LIMITS, Limits
from pvc.media.pixels import FrameStack, check_target_size
from pvc.media.sampling import Sampling
from pvc.media.source import is_file_source, open_source
from pvc.media.types import Picture, Video
from pvc.media.video import read_any_video

Kind = Literal["image", "video"]


def load(
    source: Any,
    *,
    kind: Kind | None = None,
    sampling: Sampling = Sampling(),  # noqa: B008 - frozen
    size: tuple[int, int] | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> Picture | Video:
    """A Picture or a Video from a path, bytes, a PIL picture, an array, a list of pictures, a Picture or a Video.

    `kind` insists on one of the two: a still picture becomes a video of one frame, an animation its first frame.
    Without it, GIF and WebP with several frames are videos, APNG is a picture, arrays (H, W[, C]) are pictures,
    arrays (F, H, W, C) and lists are videos, one frame a second. `sampling` holds for files only: frames in memory
    are taken as they are. `size` (height, width) holds for the frames of videos. A Picture or Video is returned as
    it is. Raises UsageError, MediaError and ForbiddenError.
    """
    if kind not in (None, "image", "video"):
        raise UsageError(f"kind must be 'image', 'video' or None, not {kind!r}")
    check_target_size(size)
    if isinstance(source, (Picture, Video)):
        if kind not in (None, source.kind):
            raise UsageError(f"{source.name} is a {type(source).__name__}, but kind is {kind!r}")
        return source
    if is_file_source(source):
        return _load_file(source, kind, sampling, size, limits)
    return _load_value(source, kind, size, limits)


def _load_file(
    source: Any, kind: Kind | None, sampling: Sampling, size: tuple[int, int] | None, limits: Limits
) -> Picture | Video:
    with open_source(source, limits) as opened:
        if kind is None:
            still = opened.format.kind == "image" and not is_animation(opened)
            kind = "image" if still else "video"
        if kind == "image":
            return read_image(opened, limits)
        return read_any_video(opened, sampling, size, limits)


def _load_value(source: Any, kind: Kind | None, size: tuple[int, int] | None, limits: Limits) -> Picture | Video:
    # PIL pictures offer __array__ too, with palette indices for pixels; load_image knows better.
    is_list = isinstance(source, Sequence)
    if is_list or (type(source).__module__.partition(".")[0] != "PIL" and np.ndim(source) == 4):
        if kind == "image":
            raise UsageError("several frames are a video, but kind is 'image'")
        return _resized(Video.from_frames(source), size, limits)
    picture = load_image(source, limits)
    if kind != "video":
        return picture
    frames = np.asarray(picture.image)[None]
    return _resized(Video(frames, (0.0,), None, picture.name, picture.format, picture.warnings, 1), size, limits)


def _resized(video: Video, size: tuple[int, int] | None, limits: Limits) -> Video:
    """`video` within the limits, its frames at `size`."""
    count, height, width = video.frames.shape[:3]
    if count > limits.max_frames:
        raise MediaError(f"{video.name}: {count} frames; the limit is {limits.max_frames}", code="too_many_frames")
    limits.check_size(width, height, video.name)
    if size is None or size == (height, width):
        return video
    from PIL import Image as pil

    stack = FrameStack(count, size, limits, video.name)
    for frame, time in zip(video.frames, video.timestamps, strict=True):
        stack.add(pil.fromarray(frame), time)
    return Video(
        stack.frames(), video.timestamps, video.duration, video.name, video.format, video.warnings, video.source_frames
    )
