"""What a picture or a video may cost before it is refused.

Every number is checked before the expensive step it guards: bytes before reading, pixels before
decoding, frames before allocating. Leaves out requests per second and queues: those are the server's.
Called by every loader of this package.
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

    `max_pixels`: width x height of one picture or frame as it is decoded, which a JPEG can be at a reduced size.
    `max_bytes`: the encoded medium in memory, a picture's file, one packet of a video; a video in a file is read by
    seeking and may have any number. `max_frames`: frames in the result. `max_aspect`: the longer side over the shorter
    one. `max_source_frames`: packets or animation frames looked at while reading the times. `max_decode_seconds`: wall
    time of one decode. Raises UsageError at construction when a value is not a positive number.
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
            whole = field.type == "int"
            if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)) or not value > 0:
                kind = "a positive whole number" if whole else "a positive number"
                raise UsageError(f"Limits.{field.name} must be {kind}, not {value!r}")

    def check_size(
        self,
        width: int,
        height: int,
        name: str,
        scales: Sequence[int] = (1,),
        advice: str = "scale it down first",
    ) -> int:
        """The first of `scales` by which `width` x `height` has to be divided to be within the limits.

        Args:
            width, height: pixels of the picture or frame, as its header says.
            name: of the file, for the message.
            scales: by which the decoder can divide both sides, in increasing order.
            advice: what to do about too many pixels, for the message.

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
        """Raise MediaError `too_many_pixels` when that many decoded frames would not fit into memory sensibly."""
        if frames * height * width > MAX_RESULT_PIXELS:
            raise MediaError(
                f"{name}: {frames} frames of {width}x{height} are {frames * height * width} pixels; the limit is "
                f"{MAX_RESULT_PIXELS}; ask for fewer frames or give a size",
                code="too_many_pixels",
            )


DEFAULT_LIMITS = Limits()


class Deadline:
    """The end of the time that one decode may take; looked at between packets, since none can be interrupted."""

    def __init__(self, limits: Limits, name: str) -> None:
        self._seconds = limits.max_decode_seconds
        self._end = time.monotonic() + self._seconds if math.isfinite(self._seconds) else math.inf
        self._name = name

    def check(self) -> None:
        """Raise MediaError `too_many_frames` once the time is up."""
        if time.monotonic() > self._end:
            raise MediaError(
                f"{self._name}: reading took longer than {self._seconds:g} seconds", code="too_many_frames"
            )
