"""Limits on pictures and videos: what is rejected, and when a decode has to stop.

Every number is checked before the expensive step that it guards: bytes before reading, pixels before decoding, frames
before allocating. Limits on requests are those of pvc.server. Called by every loader of this package.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

from pvc.errors import MediaError, UsageError

MAX_RESULT_PIXELS = 1_000_000_000
"""Frames x height x width of one decoded video (3 bytes each); smaller frames, or fewer, stay below it."""


@dataclass(frozen=True)
class Limits:
    """Bounds on one picture or video.

    Attributes:
        max_pixels: width x height of one picture or frame as it is decoded. A JPEG can be decoded at a reduced size.
        max_bytes: bytes of an encoded medium in memory, of a picture file, and of one packet of a video. A video file
            is read by seeking and may be of any size.
        max_frames: frames in the result.
        max_aspect: the longer side divided by the shorter one.
        max_source_frames: packets or animation frames that are read to find the times.
        max_decode_seconds: wall time of one decode.

    Raises:
        UsageError: a value is not a positive number.
    """

    max_pixels: int = 33_554_432
    max_bytes: int = 256 * 2**20
    max_frames: int = 768
    max_aspect: float = 200.0
    max_source_frames: int = 1_000_000
    max_decode_seconds: float = 300.0

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            is_integer = field.type == "int"
            if isinstance(value, bool) or not isinstance(value, int if is_integer else (int, float)) or not value > 0:
                kind = "a positive whole number" if is_integer else "a positive number"
                raise UsageError(f"Limits.{field.name} must be {kind}, not {value!r}")

    def check_size(
        self,
        width: int,
        height: int,
        name: str,
        scales: Sequence[int] = (1,),
        advice: str = "scale it down first",
    ) -> int:
        """Find the first of `scales` by which `width` x `height` must be divided to be within the limits.

        Args:
            width: pixels of the picture or frame, as its header declares.
            height: pixels of the picture or frame, as its header declares.
            name: file name for the error message.
            scales: divisors of both sides that the decoder supports, increasing.
            advice: what to do about too many pixels, for the error message.

        Returns:
            The divisor: one of `scales`.

        Raises:
            MediaError: `corrupt_media` without pixels, `too_many_pixels` at every scale, `aspect_ratio`.
        """
        if width < 1 or height < 1:
            raise MediaError(f"{name}: the header says {width}x{height} pixels", code="corrupt_media")
        sizes = {scale: -(-width // scale) * -(-height // scale) for scale in scales}
        scale = next((scale for scale, pixels in sizes.items() if pixels <= self.max_pixels), None)
        if scale is None:
            last = scales[-1]
            reduced = f", {sizes[last]} at 1/{last} of its size" if last > 1 else ""
            raise MediaError(
                f"{name}: {width}x{height} is {width * height} pixels{reduced}; "
                f"the limit is {self.max_pixels}; {advice}",
                code="too_many_pixels",
            )
        if max(width, height) > self.max_aspect * min(width, height):
            raise MediaError(
                f"{name}: {width}x{height} is more elongated than the limit of {self.max_aspect:g}:1; crop it first",
                code="aspect_ratio",
            )
        return scale

    def check_result(self, frames: int, height: int, width: int, name: str) -> None:
        """Check that the decoded frames fit into memory.

        Args:
            frames: number of decoded frames.
            height: pixels of each frame.
            width: pixels of each frame.
            name: file name for the error message.

        Raises:
            MediaError: `too_many_pixels`, more than MAX_RESULT_PIXELS in all.
        """
        if frames * height * width > MAX_RESULT_PIXELS:
            raise MediaError(
                f"{name}: {frames} frames of {width}x{height} are {frames * height * width} pixels; the limit is "
                f"{MAX_RESULT_PIXELS}; request fewer frames or pass a size",
                code="too_many_pixels",
            )


DEFAULT_LIMITS = Limits()


class Deadline:
    """The end of the time that one decode may take. It is checked between packets, which cannot be interrupted.

    Args:
        limits: `max_decode_seconds` is counted from now on.
        name: file name for the error message.
    """

    def __init__(self, limits: Limits, name: str) -> None:
        self._seconds = limits.max_decode_seconds
        self._end = time.monotonic() + self._seconds if math.isfinite(self._seconds) else math.inf
        self._name = name

    def check(self) -> None:
        """Raise MediaError `too_many_frames` if the time is up."""
        if time.monotonic() > self._end:
            raise MediaError(
                f"{self._name}: reading took longer than {self._seconds:g} seconds", code="too_many_frames"
            )
