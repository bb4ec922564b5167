"""Read GIF and WebP animations as videos, with the durations that their frames declare.

Times come from the blocks of the file, without decoding. Then Pillow decodes all frames up to the last one that was
picked. Frames are composited on white. An animated PNG counts as a picture. Called by video.py, `load`, `probe`
and outline.py.
"""

from __future__ import annotations

from collections.abc import Sequence

from pvc.errors import MediaError
from pvc.media.image import PILLOW_ERRORS, open_pillow, read_image, to_media_error, to_rgb
from pvc.media.image_header import iter_animation_frames
from pvc.media.limits import Deadline, Limits
from pvc.media.pixels import FrameStack
from pvc.media.sampling import Sampling, choose
from pvc.media.source import Source
from pvc.media.types import Video


def is_animation(source: Source) -> bool:
    """Return whether the file is a GIF or WebP with more than one frame."""
    frames = iter_animation_frames(source.format.name, source.file)
    return next(frames, None) is not None and next(frames, None) is not None


def read_times(source: Source, limits: Limits) -> tuple[list[float], float]:
    """Read when each frame of the animation appears, and when the last one ends.

    Args:
        source: an open GIF or WebP.
        limits: bounds on the number of frames and their size.

    Returns:
        Times of the frames and the duration, in seconds.

    Raises:
        MediaError: a frame larger than `limits` allow, or `too_many_frames`.
    """
    times: list[float] = []
    clock = 0.0
    for frame in iter_animation_frames(source.format.name, source.file):
        if len(times) >= limits.max_source_frames:
            raise MediaError(
                f"{source.name}: more than {limits.max_source_frames} animation frames", code="too_many_frames"
            )
        # If a frame reaches beyond the declared canvas, Pillow enlarges the canvas.
        if frame.right * frame.bottom > limits.max_pixels:
            limits.check_size(frame.right, frame.bottom, source.name)
        times.append(clock)
        clock = round(clock + frame.duration, 6)
    return times, clock


def read_animation(source: Source, sampling: Sampling, size: tuple[int, int] | None, limits: Limits) -> Video:
    """Load the frames of a GIF or WebP that `sampling` picks.

    A still picture becomes a video of one frame without a duration.

    Args:
        source: an open GIF or WebP.
        sampling: which frames to take.
        size: (height, width) in pixels to which frames are resized.
        limits: bounds on the file and the result.

    Raises:
        MediaError: as in `load_video`.
        UsageError: as in `load_video`.
    """
    times, duration = read_times(source, limits)
    if len(times) < 2:
        return read_still(source, sampling, size, limits)
    indices, warnings = choose(times, duration, sampling, limits)
    stack = FrameStack(len(indices), size, limits, source.name)
    failure = _decode(source, indices, times, stack, limits)
    if not len(stack):
        raise to_media_error(source.name, failure or EOFError("no frame")) from failure
    if failure:
        warnings += (f"partial_decode: got {len(stack)} of {len(indices)} frames: {failure}",)
    return Video(
        stack.get_frames(),
        tuple(stack.timestamps),
        duration,
        source.name,
        source.format.name,
        warnings + stack.get_warnings(),
        len(times),
    )


def read_still(source: Source, sampling: Sampling, size: tuple[int, int] | None, limits: Limits) -> Video:
    """Load a picture as a video of one frame at time 0, of unknown duration.

    Args:
        source: an open picture.
        sampling: checked, so that a time outside the video is an error.
        size: (height, width) in pixels to which the frame is resized.
        limits: bounds on the file and the result.
    """
    choose([0.0], None, sampling, limits)
    picture = read_image(source, limits)
    stack = FrameStack(1, size, limits, source.name)
    stack.add(picture.image, 0.0)
    return Video(stack.get_frames(), (0.0,), None, picture.name, picture.format, picture.warnings, 1)


def _decode(
    source: Source, indices: Sequence[int], times: Sequence[float], stack: FrameStack, limits: Limits
) -> Exception | None:
    """Fill `stack` in one forward pass. Return the error that ended it early, or None."""
    deadline = Deadline(limits, source.name)
    image = open_pillow(source, limits)
    targets = set(indices)
    for index in range(indices[-1] + 1):
        deadline.check()
        try:
            # Load every frame, since frames are differences to the one before.
            image.seek(index)
            limits.check_size(*image.size, source.name)
            image.load()
        except PILLOW_ERRORS as error:
            return error
        if index in targets:
            stack.add(to_rgb(image, source.name), times[index])
    return None
