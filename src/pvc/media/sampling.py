"""Choose which frames of a video to take, from the times of all its frames.

These are pure functions of numbers: no files, no pixels. The frame on display at time t is the latest frame with a
presentation time <= t. Called by decode.py, animation.py, live.py and outline.py.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from numbers import Real
from typing import Any, TypeAlias

import numpy as np

from pvc.errors import MediaError, UsageError
from pvc.media.limits import Limits

_Floats: TypeAlias = "np.ndarray[Any, np.dtype[np.float64]]"

SLACK = 1e-6
"""Seconds. Times are rationals rounded to doubles, and a request for 3 * 0.1 s must find the frame at 0.3 s."""

# Beyond these a rate means "every frame" or "the first one"; within them its multiples are finite.
_MIN_FPS, _MAX_FPS = 1e-9, 1e5


@dataclass(frozen=True)
class Sampling:
    """Frame sampling: the rule by which frames are chosen. If `fps` or `times` is set, `frames` is ignored.

    Attributes:
        frames: number of frames, spread evenly over the duration.
        fps: frames per second of the video.
        times: seconds since the start of the video, increasing.

    Raises:
        UsageError: wrong values, `fps` together with `times`, or all three None.
    """

    frames: int | None = 16
    fps: float | None = None
    times: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if self.fps is not None and self.times is not None:
            raise UsageError("give fps or times, not both")
        if self.fps is None and self.times is None and self.frames is None:
            raise UsageError("give frames, fps or times")
        if self.frames is not None and (type(self.frames) is not int or self.frames < 1):
            raise UsageError(f"frames must be a whole number of 1 or more, not {self.frames!r}")
        if self.fps is not None and not (is_number(self.fps) and self.fps > 0):
            raise UsageError(f"fps must be a positive number, not {self.fps!r}")
        if self.times is not None:
            self._check_times(self.times)

    @staticmethod
    def _check_times(times: tuple[float, ...]) -> None:
        if not isinstance(times, tuple) or not times:
            raise UsageError(f"times must be a tuple of seconds that is not empty, not {times!r}")
        if not all(is_number(time) and time >= 0 for time in times):
            raise UsageError(f"times must be finite and not negative, not {times!r}")
        if any(later <= earlier for earlier, later in pairwise(times)):
            raise UsageError(f"times must increase, not {times!r}")

    def check(self, limits: Limits, name: str = "video") -> None:
        """Check the number of requested frames before the file is read.

        Args:
            limits: `max_frames` is the bound.
            name: name of the video in the error message.

        Raises:
            MediaError: `too_many_frames`, more frames are requested than `limits` allow.
        """
        requested = len(self.times) if self.times is not None else self.frames if self.fps is None else 0
        if requested is not None and requested > limits.max_frames:
            raise MediaError(f"{name}: {requested} frames; the limit is {limits.max_frames}", code="too_many_frames")


def is_number(value: object) -> bool:
    """Return whether `value` is a finite real number; True and False are not numbers."""
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def choose(
    times: Sequence[float], duration: float | None, sampling: Sampling, limits: Limits, slack: float = SLACK
) -> tuple[list[int], tuple[str, ...]]:
    """Choose the frames that `sampling` picks.

    frames=N picks the frames on display at the middles of N equal parts of the duration, or all frames if there are no
    more than N. fps=f picks those on display at 0, 1/f, 2/f, ... seconds. times picks those on display at each time.

    Args:
        times: presentation times in seconds, sorted, without repeats; the first is 0.
        duration: seconds, or None if unknown.
        sampling: the rule.
        limits: `max_frames` bounds the result.
        slack: seconds by which a frame may come late and still count as on display, for containers that round times.

    Returns:
        Sorted indices into `times`, and warnings.

    Raises:
        MediaError: `too_many_frames`.
        UsageError: a time outside the video, or `times` out of order.
    """
    sampling.check(limits)
    frame_times = np.asarray(times, np.float64)
    if frame_times.ndim != 1 or not len(frame_times) or frame_times[0] != 0 or bool(np.any(np.diff(frame_times) < 0)):
        raise UsageError("the times of a video are sorted and start with 0")
    end = _get_end(frame_times, duration)
    if sampling.times is not None:
        return _choose_at_times(frame_times, end, sampling.times, slack)
    if sampling.fps is not None:
        return _choose_at_fps(frame_times, end, sampling.fps, limits, slack)
    assert sampling.frames is not None
    if len(frame_times) <= sampling.frames:
        return list(range(len(frame_times))), ()
    middles = (np.arange(sampling.frames, dtype=np.float64) + 0.5) * (end / sampling.frames)
    return _find_displayed(frame_times, middles, slack), ()


def _get_end(frame_times: _Floats, duration: float | None) -> float:
    """Return the end of the video. Without a duration, the last frame stays for the average time of the frames."""
    last = float(frame_times[-1])
    if duration is None:
        return last + last / (len(frame_times) - 1) if len(frame_times) > 1 else last
    return max(duration, last)


def _find_displayed(frame_times: _Floats, times: _Floats, slack: float) -> list[int]:
    indices = np.maximum(np.searchsorted(frame_times, times + slack, side="right") - 1, 0)
    return [int(index) for index in np.unique(indices)]


def _choose_at_times(
    frame_times: _Floats, end: float, times: tuple[float, ...], slack: float
) -> tuple[list[int], tuple[str, ...]]:
    if times[-1] > end + slack:
        raise UsageError(f"time {times[-1]:g} s lies outside the video, which lasts {end:g} s")
    indices = _find_displayed(frame_times, np.asarray(times, np.float64), slack)
    if len(indices) < len(times):
        return indices, (f"times_merged: {len(times)} times fall on {len(indices)} frames",)
    return indices, ()


def _choose_at_fps(
    frame_times: _Floats, end: float, fps: float, limits: Limits, slack: float
) -> tuple[list[int], tuple[str, ...]]:
    # Loop over frames, not over sampling times: a wrong duration must not determine how long this takes.
    rate = min(max(float(fps), _MIN_FPS), _MAX_FPS)
    end_times = np.append(frame_times[1:], end if end > frame_times[-1] else frame_times[-1] + 2 * slack)
    next_sample = np.ceil((frame_times - slack) * rate) / rate
    indices = np.flatnonzero(next_sample < end_times - slack)
    if len(indices) <= limits.max_frames:
        return [int(index) for index in indices], ()
    middles = (np.arange(limits.max_frames) + 0.5) * (len(indices) / limits.max_frames)
    selection = [int(index) for index in indices[middles.astype(np.intp)]]
    warning = (
        f"fps_reduced: {fps:g} frames a second are {len(indices)} frames; the limit is {limits.max_frames}, "
        f"so {len(selection)} evenly spread ones were taken"
    )
    return selection, (warning,)
