"""Value types of the loaders: Picture, Video and MediaInfo, validated at construction.

Built by the loaders of this package and by callers that have pixels in memory. Read by pvc.processing, which turns
them into tensors.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from pvc.errors import MismatchError, UsageError
from pvc.media.pixels import rgb_from_array, rgb_from_pil, to_uint8

if TYPE_CHECKING:
    from PIL.Image import Image

UNTIMED_FPS = 1.0
"""Frames that come without any times count as one second apart."""


@dataclass(frozen=True, eq=False)
class Picture:
    """One picture.

    Attributes:
        image: Pillow picture in mode RGB: upright, 8 bits, opaque.
        name: file name for error messages.
        format: "png", "jpeg", "webp", "gif", "bmp", "pil" or "array".
        warnings: each starts with a stable word and a colon.

    Raises:
        UsageError: `image` is anything else.
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
    """Frames with their presentation times.

    Attributes:
        frames: uint8 (F, H, W, 3), RGB, F >= 1.
        timestamps: F times in seconds since the start of the video, never decreasing.
        duration: seconds, or None if unknown.
        name: file name for error messages.
        format: container of the file, such as "mp4", or "array".
        warnings: each starts with a stable word and a colon.
        source_frames: number of frames that there were to choose from, or None if unknown.

    Raises:
        MismatchError: the numbers of frames and timestamps differ.
        UsageError: any other wrong value.
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
        """Build a Video from an array (F, H, W, 1, 3 or 4) or a sequence of pictures (arrays or PIL) of one size.

        Without `fps` and `timestamps` the frames are one second apart.

        Args:
            frames: uint8, or float in [0, 1]. uint8 RGB arrays are not copied.
            fps: frames per second.
            timestamps: F times in seconds.
            name: name of the video for error messages.

        Raises:
            UsageError: wrong types, shapes or values, or both `fps` and `timestamps`.
            MismatchError: sizes or counts differ.
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
    """Properties of a medium that are known without decoding a pixel.

    Attributes:
        kind: "image" or "video".
        format: format of the file, such as "png" or "mp4".
        width: pixels as displayed: after the EXIF orientation of a picture or the rotation that a container declares.
            If a JPEG is decoded at a reduced size, this is the reduced size.
        height: pixels as displayed, like `width`.
        frames: counted from packets or blocks, not what the file declares; None if unknown.
        duration: seconds, counted like `frames`; None if unknown.
    """

    kind: Literal["image", "video"]
    format: str
    width: int
    height: int
    frames: int | None = None
    duration: float | None = None


def stack_frames(frames: np.ndarray[Any, Any] | Sequence[Any]) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Convert what `Video.from_frames` accepts to uint8 (F, H, W, 3). Raises the same errors."""
    if hasattr(frames, "__array__") or isinstance(frames, np.ndarray):
        array = np.asarray(frames)
        if array.ndim != 4 or array.shape[3] not in (1, 3, 4) or 0 in array.shape:
            raise UsageError(f"frames must have the shape (F, H, W, 3), not {array.shape}")
        if array.shape[3] == 3:
            return to_uint8(array)
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
    """Convert a PIL picture or an array to an RGB picture. Raise UsageError for anything else."""
    from PIL import Image as pil

    if isinstance(pixels, pil.Image):
        try:
            return rgb_from_pil(pixels)
        except (OSError, ValueError) as error:
            raise UsageError(f"this PIL picture cannot be used: {error}") from error
    if hasattr(pixels, "__array__"):
        return rgb_from_array(np.asarray(pixels))
    raise UsageError(f"a picture is a PIL picture or an array, not a {type(pixels).__name__}")
