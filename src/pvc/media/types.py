"""What the loaders return: a picture, a video with the true times of its frames, or what a header tells.

Values without behaviour, validated at construction. Leaves out tensors and tokens (pvc.processing).
Made by the loaders of this package and by anyone who has pixels in memory; read by pvc.processing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from pvc.errors import MismatchError, UsageError
from pvc.media.pixels import rgb_from_array, rgb_from_pil, uint8_values

if TYPE_CHECKING:
    from PIL.Image import Image

UNTIMED_FPS = 1.0
"""Frames that come without any times count as one second apart."""


@dataclass(frozen=True, eq=False)
class Picture:
    """One picture: `image` is a Pillow RGB picture, upright, 8 bits, opaque.

    `format` is "png", "jpeg", "webp", "gif", "bmp", "pil" or "array". Each warning starts with a stable word and
    a colon. Raises UsageError when `image` is anything else.
    """

    kind: ClassVar[Literal["image"]] = "image"

    image: Image
    name: str = "<picture>"
    format: str = "pil"
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        from PIL import Image as pil

        if not isinstance(self.image, pil.Image):
            raise UsageError(f"Picture.image must be a PIL picture, not a {type(self.image).__name__}")
        if self.image.mode != "RGB" or 0 in self.image.size:
            raise UsageError(
                f"Picture.image must be RGB with at least one pixel, not {self.image.mode} "
                f"{self.image.width}x{self.image.height}"
            )


@dataclass(frozen=True, eq=False)
class Video:
    """Frames with the times at which they appear.

    `frames`: uint8 (F, H, W, 3), RGB, F >= 1. `timestamps`: F times in seconds since the video's start, never
    decreasing. `duration`: seconds, None when unknown. `source_frames`: how many frames there were to choose from.
    Raises MismatchError when the counts differ, UsageError for any other wrong value.
    """

    kind: ClassVar[Literal["video"]] = "video"

    frames: np.ndarray[Any, np.dtype[np.uint8]] = field(repr=False)
    timestamps: tuple[float, ...]
    duration: float | None = None
    name: str = "<video>"
    format: str = "array"
    warnings: tuple[str, ...] = ()
    source_frames: int | None = None

    def __post_init__(self) -> None:
        frames = self.frames
        if not isinstance(frames, np.ndarray) or frames.dtype != np.uint8:
            raise UsageError(f"Video.frames must be a uint8 array, not {getattr(frames, 'dtype', type(frames))}")
        if frames.ndim != 4 or frames.shape[3] != 3 or 0 in frames.shape:
            raise UsageError(f"Video.frames must have the shape (F, H, W, 3), not {frames.shape}")
        if len(frames) != len(self.timestamps):
            raise MismatchError(f"{len(frames)} frames but {len(self.timestamps)} timestamps")
        if not all(math.isfinite(time) and time >= 0 for time in self.timestamps):
            raise UsageError("timestamps must be finite and not negative")
        if any(later < earlier for earlier, later in pairwise(self.timestamps)):
            raise UsageError("timestamps must not decrease")
        if self.duration is not None and not (math.isfinite(self.duration) and self.duration >= self.timestamps[-1]):
            raise UsageError(
                f"a duration of {self.duration} s does not reach the last timestamp, {self.timestamps[-1]} s"
            )

    @classmethod
    def from_frames(
        cls,
        frames: np.ndarray[Any, Any] | Sequence[Any],
        fps: float | None = None,
        timestamps: Sequence[float] | None = None,
        *,
        name: str = "<frames>",
    ) -> Video:
        """A video from an array (F, H, W, 1, 3 or 4) or a sequence of pictures: arrays or PIL, all of one size.

        `fps`: frames a second, or `timestamps`: F times in seconds; with neither, the frames are one second
        apart. Pixels are uint8 or float in [0, 1]; uint8 RGB arrays are not copied. Raises UsageError, and
        MismatchError when sizes or counts differ.
        """
        array = stack_frames(frames)
        if fps is not None and timestamps is not None:
            raise UsageError("give fps or timestamps, not both")
        if timestamps is not None:
            times = tuple(float(time) for time in timestamps)
            return cls(array, times, None, name, source_frames=len(array))
        rate = UNTIMED_FPS if fps is None else fps
        if isinstance(rate, bool) or not isinstance(rate, (int, float)) or not (math.isfinite(rate) and rate > 0):
            raise UsageError(f"fps must be a positive number, not {rate!r}")
        times = tuple(index / rate for index in range(len(array)))
        return cls(array, times, len(array) / rate, name, source_frames=len(array))


@dataclass(frozen=True)
class MediaInfo:
    """What can be known without decoding a pixel.

    `width` and `height` in pixels as they are shown: the EXIF orientation of a picture and the rotation that a video's
    container declares are applied. A JPEG that is decoded at a reduced size counts with that size. `frames` and
    `duration` (seconds) are counted from the packets or blocks, not taken from what the file declares; None when they
    cannot be known.
    """

    kind: Literal["image", "video"]
    format: str
    width: int
    height: int
    frames: int | None = None
    duration: float | None = None


def stack_frames(frames: np.ndarray[Any, Any] | Sequence[Any]) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """uint8 (F, H, W, 3) from what `Video.from_frames` accepts; same errors."""
    if hasattr(frames, "__array__") or isinstance(frames, np.ndarray):
        array = np.asarray(frames)
        if array.ndim != 4 or array.shape[3] not in (1, 3, 4) or 0 in array.shape:
            raise UsageError(f"frames must have the shape (F, H, W, 3), not {array.shape}")
        if array.shape[3] == 3:
            return uint8_values(array)
        return np.stack([np.asarray(rgb_from_array(frame)) for frame in array])
    if not isinstance(frames, Sequence) or isinstance(frames, (str, bytes)):
        raise UsageError(f"frames must be an array or a list of pictures, not a {type(frames).__name__}")
    if not frames:
        raise UsageError("a video needs at least one frame")
    pictures = [as_rgb(frame) for frame in frames]
    for index, picture in enumerate(pictures):
        if picture.size != pictures[0].size:
            raise MismatchError(
                f"frame {index} is {picture.width}x{picture.height}, "
                f"frame 0 is {pictures[0].width}x{pictures[0].height}"
            )
    return np.stack([np.asarray(picture) for picture in pictures])


def as_rgb(pixels: Any) -> Image:
    """One RGB picture from a PIL picture or an array. Raises UsageError for anything else."""
    from PIL import Image as pil

    if isinstance(pixels, pil.Image):
        try:
            return rgb_from_pil(pixels)
        except (OSError, ValueError) as error:
            raise UsageError(f"this PIL picture cannot be used: {error}") from error
    if hasattr(pixels, "__array__"):
        return rgb_from_array(np.asarray(pixels))
    raise UsageError(f"a picture is a PIL picture or an array, not a {type(pixels).__name__}")
