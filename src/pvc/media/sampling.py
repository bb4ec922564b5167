"""Which frames of a video to take, from the times of all its frames.

Pure functions on numbers: no files, no pixels. What is on display at time t is the latest frame with a
presentation time <= t. Leaves out decoding. Called by video.py and animation.py; the rules are tested
on numbers alone.
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
"""Seconds; times are rationals rounded to doubles, and 3 * 0.1 s asked for must still find the frame at 0.3 s."""

# Beyond these a rate means "every frame" or "the first one", and its multiples stay finite.
_LOWEST_FPS, _HIGHEST_FPS = 1e-9, 1e5


@dataclass(frozen=True)
class Sampling:
    """One rule to choose frames by; `fps` or `times` takes the place of `frames`.

    `frames`: that many, spread evenly over the duration. `fps`: that many a second. `times`: in seconds since
    the start, increasing. Raises UsageError for wrong values, for `fps` with `times`, and when there is no rule.
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
        """Raise MediaError `too_many_frames` when more frames are asked for than `limits` allow."""
        asked = len(self.times) if self.times is not None else self.frames if self.fps is None else 0
        if asked is not None and asked > limits.max_frames:
            raise MediaError(f"{name}: {asked} frames; the limit is {limits.max_frames}", code="too_many_frames")


def is_number(value: object) -> bool:
    """Whether `value` is a finite real number; True and False are none."""
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def choose(
    times: Sequence[float], duration: float | None, sampling: Sampling, limits: Limits, slack: float = SLACK
) -> tuple[list[int], tuple[str, ...]]:
    """Indices into `times` (sorted, without repeats) of the frames that `sampling` picks, and warnings.

    `times`: presentation times in seconds, sorted, the first one 0; `duration`: seconds, or None when unknown.
    `slack`: seconds by which a frame may come late and still count as on display, for times that a file rounds.
    Raises MediaError `too_many_frames`, and UsageError for a time outside the video or times out of order.

    frames=N: the frames on display at the middles of N equal parts of the duration; all frames when there are
    no more than N. fps=f: those on display at 0, 1/f, 2/f, ... times: those on display at each.
    """
    sampling.check(limits)
    shown = np.asarray(times, np.float64)
    if shown.ndim != 1 or not len(shown) or shown[0] != 0 or bool(np.any(np.diff(shown) < 0)):
        raise UsageError("the times of a video are sorted and start with 0")
    end = _end(shown, duration)
    if sampling.times is not None:
        return _at(shown, end, sampling.times, slack)
    if sampling.fps is not None:
        return _every(shown, end, sampling.fps, limits, slack)
    assert sampling.frames is not None
    if len(shown) <= sampling.frames:
        return list(range(len(shown))), ()
    middles = (np.arange(sampling.frames, dtype=np.float64) + 0.5) * (end / sampling.frames)
    return _on_display(shown, middles, slack), ()


def _end(shown: _Floats, duration: float | None) -> float:
    """Where the video ends; without a duration its last frame stays as long as the frames do on average."""
    last = float(shown[-1])
    if duration is None:
        return last + last / (len(shown) - 1) if len(shown) > 1 else last
    return max(duration, last)


def _on_display(shown: _Floats, moments: _Floats, slack: float) -> list[int]:
    indices = np.maximum(np.searchsorted(shown, moments + slack, side="right") - 1, 0)
    return [int(index) for index in np.unique(indices)]


def _at(shown: _Floats, end: float, times: tuple[float, ...], slack: float) -> tuple[list[int], tuple[str, ...]]:
    if times[-1] > end + slack:
        raise UsageError(f"time {times[-1]:g} s lies outside the video, which lasts {end:g} s")
    indices = _on_display(shown, np.asarray(times, np.float64), slack)
    if len(indices) < len(times):
        return indices, (f"times_merged: {len(times)} times fall on {len(indices)} frames",)
    return indices, ()


def _every(shown: _Floats, end: float, fps: float, limits: Limits, slack: float) -> tuple[list[int], tuple[str, ...]]:
    # Asked frame by frame, not moment by moment: a lying duration must not decide how long this takes.
    rate = min(max(float(fps), _LOWEST_FPS), _HIGHEST_FPS)
    gone = np.append(shown[1:], end if end > shown[-1] else shown[-1] + 2 * slack)
    next_moment = np.ceil((shown - slack) * rate) / rate
    indices = np.flatnonzero(next_moment < gone - slack)
    if len(indices) <= limits.max_frames:
        return [int(index) for index in indices], ()
    middles = (np.arange(limits.max_frames) + 0.5) * (len(indices) / limits.max_frames)
    kept = [int(index) for index in indices[middles.astype(np.intp)]]
    warning = (
        f"fps_reduced: {fps:g} frames a second are {len(indices)} frames; the limit is {limits.max_frames}, "
        f"so {len(kept)} evenly spread ones were kept"
    )
    return kept, (warning,)
