"""Load a picture or a video from any supported source.

Files are classified by their first bytes, values in memory by type and shape. URLs are not fetched here: pvc.server
does that, with separate rules. Called by the command line, the engine and the server.
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
    """Load a Picture or a Video from a path, bytes, a PIL picture, an array, a list of pictures, a Picture or a Video.

    Without `kind`, GIF and WebP files with several frames are videos and APNG files are pictures. Arrays (H, W[, C])
    are pictures. Arrays (F, H, W, C) and lists are videos with one frame a second.

    Args:
        source: what to load. A Picture or Video is returned unchanged.
        kind: "image" or "video" to force one of the two. A still picture becomes a video of one frame; of an animation
            the first frame is taken.
        sampling: which frames of a file to take. Frames in memory are all taken.
        size: (height, width) in pixels to which the frames of a video are resized.
        limits: bounds on the size of the input and of the result.

    Returns:
        A Picture, or a Video with uint8 frames (F, H, W, 3).

    Raises:
        UsageError: wrong `kind`, `size`, type of source, or a sampling time outside the video.
        MediaError: the file is missing, damaged, of an unknown format, or beyond `limits`.
        ForbiddenError: a URL, or not a regular file.
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
    with open_source(source, limits) as media_file:
        if kind is None:
            is_still = media_file.format.kind == "image" and not is_animation(media_file)
            kind = "image" if is_still else "video"
        if kind == "image":
            return read_image(media_file, limits)
        return read_any_video(media_file, sampling, size, limits)


def _load_value(source: Any, kind: Kind | None, size: tuple[int, int] | None, limits: Limits) -> Picture | Video:
    # A PIL picture has __array__ too, but with palette indices; load_image converts it properly.
    is_list = isinstance(source, Sequence)
    if is_list or (type(source).__module__.partition(".")[0] != "PIL" and np.ndim(source) == 4):
        if kind == "image":
            raise UsageError("several frames are a video, but kind is 'image'")
        return _resize_video(Video.from_frames(source), size, limits)
    picture = load_image(source, limits)
    if kind != "video":
        return picture
    frames = np.asarray(picture.image)[None]
    return _resize_video(Video(frames, (0.0,), None, picture.name, picture.format, picture.warnings, 1), size, limits)


def _resize_video(video: Video, size: tuple[int, int] | None, limits: Limits) -> Video:
    """Check `video` against the limits and resize its frames to `size`."""
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
        stack.get_frames(),
        video.timestamps,
        video.duration,
        video.name,
        video.format,
        video.warnings,
        video.source_frames,
    )
