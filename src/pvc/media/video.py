"""A video from a file or bytes: the frames that a Sampling picks, with their true times.

Animated GIF and WebP count as videos here, still pictures as videos of one frame. Leaves out sound and
subtitles. FFmpeg is imported only when there is a video to decode. Called by `load` and by pvc.processing.
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
    """The frames that `sampling` picks from a path or bytes, uint8 (F, H, W, 3) with F times in seconds.

    `size`: (height, width) to which each picked frame is resized (bicubic) at once, so that memory stays bounded by
    the result. Rotation is applied; the sample aspect ratio is not (models get squares anyway). Frames that are
    damaged or missing become a warning in the result, as long as there is at least one.
    Raises MediaError (every code but those of pictures' own), ForbiddenError, and UsageError for a time outside
    the video or a wrong `size`.
    """
    check_target_size(size)
    with open_source(source, limits) as opened:
        return read_any_video(opened, sampling, size, limits)


def read_any_video(source: Source, sampling: Sampling, size: tuple[int, int] | None, limits: Limits) -> Video:
    """`load_video` for a file that is already open."""
    sampling.check(limits, source.name)
    if source.format.kind == "image":
        return read_animation(source, sampling, size, limits)
    from pvc.media.decode import read_video

    return read_video(source, sampling, size, limits)
