"""GIF and WebP animations as videos, with the durations that their frames declare.

Times come from the blocks of the file, without decoding; then one forward pass through Pillow decodes up to
the last frame that was picked. Frames are composited on white. Leaves out animated PNG, which counts as a
picture. Called by video.py, `load` and `probe`.
"""

from __future__ import annotations

from collections.abc import Sequence

from pvc.errors import MediaError
from pvc.media.image import PILLOW_ERRORS, broken, open_pillow, read_image, to_rgb
from pvc.media.image_header import animation_frames
from pvc.media.limits import Deadline, Limits
from pvc.media.pixels import FrameStack
from pvc.media.sampling import Sampling, choose
from pvc.media.source import Source
from pvc.media.types import Video


def is_animation(source: Source) -> bool:
    """Whether the file is a GIF or WebP with more than one frame."""
    frames = animation_frames(source.format.name, source.file)
    return next(frames, None) is not None and next(frames, None) is not None


def read_times(source: Source, limits: Limits) -> tuple[list[float], float]:
    """(times, duration) in seconds: when each frame of the animation appears, and when the last one goes.

    Raises MediaError for a frame larger than `limits` allow and `too_many_frames` for more frames than may be walked.
    """
    times: list[float] = []
    clock = 0.0
    for frame in animation_frames(source.format.name, source.file):
        if len(times) >= limits.max_source_frames:
            raise MediaError(
                f"{source.name}: more than {limits.max_source_frames} animation frames", code="too_many_frames"
            )
        # A frame may reach beyond the canvas that the header declares, and Pillow then enlarges the canvas.
        if frame.right * frame.bottom > limits.max_pixels:
            limits.check_size(frame.right, frame.bottom, source.name)
        times.append(clock)
        clock = round(clock + frame.duration, 6)
    return times, clock


def read_animation(source: Source, sampling: Sampling, size: tuple[int, int] | None, limits: Limits) -> Video:
    """The frames of a GIF or WebP that `sampling` picks; a still one is a video of one frame without a duration.

    Raises MediaError and UsageError as `load_video` does.
    """
    times, duration = read_times(source, limits)
    if len(times) < 2:
        return read_still(source, sampling, size, limits)
    indices, warnings = choose(times, duration, sampling, limits)
    stack = FrameStack(len(indices), size, limits, source.name)
    failure = _decode(source, indices, times, stack, limits)
    if not len(stack):
        raise broken(source.name, failure or EOFError("no frame")) from failure
    if failure:
        warnings += (f"partial_decode: got {len(stack)} of {len(indices)} frames: {failure}",)
    return Video(
        stack.frames(),
        tuple(stack.timestamps),
        duration,
        source.name,
        source.format.name,
        warnings + stack.warnings(),
        len(times),
    )


def read_still(source: Source, sampling: Sampling, size: tuple[int, int] | None, limits: Limits) -> Video:
    """A picture as a video of one frame at time 0, of unknown duration."""
    choose([0.0], None, sampling, limits)
    picture = read_image(source, limits)
    stack = FrameStack(1, size, limits, source.name)
    stack.add(picture.image, 0.0)
    return Video(stack.frames(), (0.0,), None, picture.name, picture.format, picture.warnings, 1)


def _decode(
    source: Source, indices: Sequence[int], times: Sequence[float], stack: FrameStack, limits: Limits
) -> Exception | None:
    """Fill `stack` in one forward pass; the error that ended it early, if one did."""
    deadline = Deadline(limits, source.name)
    image = open_pillow(source, limits)
    wanted = set(indices)
    for index in range(indices[-1] + 1):
        deadline.check()
        try:
            # Every frame is loaded, picked or not: frames are differences to the one before.
            image.seek(index)
            limits.check_size(*image.size, source.name)
            image.load()
        except PILLOW_ERRORS as error:
            return error
        if index in wanted:
            stack.add(to_rgb(image, source.name), times[index])
    return None
