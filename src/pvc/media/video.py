"""Load a video from a file or bytes: the frames that a Sampling picks, with their presentation times.

Animated GIF and WebP files count as videos; a still picture becomes a video of one frame. Audio and subtitles are
ignored. FFmpeg is imported only if there is a video to decode. Called by `load` and by pvc.processing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pvc.media.animation import read_animation
from pvc.media.limits import DEFAULT_LIMITS, Limits
from pvc.media.pixels import check_target_size
from pvc.media.sampling import Sampling
from pvc.media.source import open_source
from pvc.media.types import Video

if TYPE_CHECKING:
    from pvc.media.source import FileSource, Source


def load_video(
    source: FileSource,
    sampling: Sampling = Sampling(),  # noqa: B008 - frozen
    size: tuple[int, int] | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> Video:
    """Load the frames of a video that `sampling` picks.

    The rotation is applied; the sample aspect ratio is not, because models take squares. If frames are damaged or
    missing but at least one is intact, the result has a warning.

    Args:
        source: path or bytes.
        sampling: which frames to take.
        size: (height, width) in pixels. Each frame is resized (bicubic) as soon as it is decoded, so that memory is
            bounded by the result.
        limits: bounds on the file and the result.

    Returns:
        A Video with frames uint8 (F, H, W, 3) and F times in seconds.

    Raises:
        MediaError: any code except those of pictures only.
        ForbiddenError: a URL, or not a regular file.
        UsageError: a time outside the video, or a wrong `size`.
    """
    check_target_size(size)
    with open_source(source, limits) as media_file:
        return read_any_video(media_file, sampling, size, limits)


def read_any_video(source: Source, sampling: Sampling, size: tuple[int, int] | None, limits: Limits) -> Video:
    """Load the frames of an open video, animation or still picture.

    Args:
        source: the open file.
        sampling: which frames to take.
        size: (height, width) in pixels to which frames are resized.
        limits: bounds on the file and the result.

    Raises:
        MediaError: as in `load_video`.
        UsageError: as in `load_video`.
    """
    sampling.check(limits, source.name)
    if source.format.kind == "image":
        return read_animation(source, sampling, size, limits)
    from pvc.media.decode import read_video

    return read_video(source, sampling, size, limits)
