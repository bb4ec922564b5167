"""Turns any pixels into 8-bit RGB: Pillow pictures of every mode, and arrays.

16-bit values are scaled and not clipped; transparency is composited on white. Leaves out decoding and
EXIF orientation (image.py). Called by the loaders, by `Video.from_frames` and by the writers.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import numpy as np

from pvc.errors import MediaError, UsageError
from pvc.media.limits import Limits

if TYPE_CHECKING:
    from PIL.Image import Image

# Rounding in float32 can leave a value that should be 1.0 slightly above.
_FLOAT_SLACK = 1e-5


def rgb_from_pil(image: Image) -> Image:
    """`image` as a new RGB picture of the same size, transparency on white.

    Raises what Pillow raises when the pixels cannot be decoded, and ValueError for mode F outside 0..1
    and for modes that Pillow cannot convert.
    """
    from PIL import Image as pil

    if image.mode.startswith("I"):  # I;16 and its byte orders from a 16-bit file, I from older code
        image = _eight_bit(image)
    elif image.mode == "F":
        return rgb_from_array(np.asarray(image))
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        canvas = pil.new("RGB", image.size, "white")
        canvas.paste(layer, mask=layer.getchannel("A"))
        return canvas
    return image.convert("RGB") if image.mode != "RGB" else image.copy()


def _eight_bit(image: Image) -> Image:
    """16-bit grey as mode L, or LA when one grey value stands for transparency."""
    from PIL import Image as pil

    values = np.asarray(image)
    if values.size and (values.min() < 0 or values.max() > 65535):
        raise ValueError(f"values {values.min()}..{values.max()} are no 16-bit grey")
    grey = pil.fromarray(((values.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8))
    clear = image.info.get("transparency")
    if not isinstance(clear, int):
        return grey
    alpha = pil.fromarray(np.where(values == clear, 0, 255).astype(np.uint8))
    return pil.merge("LA", (grey, alpha))


def rgb_from_array(array: np.ndarray[Any, Any]) -> Image:
    """An array (H, W), (H, W, 1), (H, W, 3) or (H, W, 4: RGBA), uint8 or float in [0, 1], as an RGB picture.

    Raises UsageError for any other shape, type or range.
    """
    from PIL import Image as pil

    if array.ndim == 2:
        array = array[:, :, None]
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4) or 0 in array.shape:
        raise UsageError(f"a picture has the shape (H, W) or (H, W, 1, 3 or 4), not {array.shape}")
    values = np.ascontiguousarray(uint8_values(array))
    if values.shape[2] == 4:
        return rgb_from_pil(pil.fromarray(values))
    return pil.fromarray(values if values.shape[2] == 3 else np.repeat(values, 3, axis=2))


def uint8_values(array: np.ndarray[Any, Any]) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """uint8 as it is, floats in [0, 1] scaled and rounded. Raises UsageError for other types and ranges."""
    if array.dtype == np.uint8:
        return array
    if not np.issubdtype(array.dtype, np.floating):
        raise UsageError(f"pixels are uint8 or float in [0, 1], not {array.dtype}")
    low, high = float(array.min()), float(array.max())
    if not (low >= -_FLOAT_SLACK and high <= 1 + _FLOAT_SLACK):  # false for NaN too
        raise UsageError(f"float pixels must lie in [0, 1]; these lie in [{low:g}, {high:g}]")
    scaled: np.ndarray[Any, np.dtype[np.uint8]] = np.rint(np.clip(array, 0, 1) * 255).astype(np.uint8)
    return scaled


def resize(image: Image, size: tuple[int, int]) -> Image:
    """`image` at `size` = (height, width), bicubic; the aspect ratio is not kept."""
    from PIL.Image import Resampling

    height, width = size
    return image if image.size == (width, height) else image.resize((width, height), Resampling.BICUBIC)


def check_target_size(size: tuple[int, int] | None) -> None:
    """Raise UsageError unless `size` is None or (height, width) in whole pixels of 1 or more."""
    if size is None:
        return
    whole = isinstance(size, (tuple, list)) and all(type(side) is int and side >= 1 for side in size)
    if not whole or len(size) != 2:
        raise UsageError(f"size must be (height, width) in whole pixels, not {size!r}")


class FrameStack:
    """The frames that were picked so far, in one array that is allocated once and never grows.

    `count`: the most frames there can be; `size`: (height, width) of the result, or None for the first frame's own.
    `changed` counts the frames whose own size is not that of the first one: they are resized. Several threads may
    fill different places at the same time.
    """

    def __init__(self, count: int, size: tuple[int, int] | None, limits: Limits, name: str) -> None:
        self.timestamps: list[float] = []
        self.changed = 0
        self._count = count
        self._size = size
        self._limits = limits
        self._name = name
        self._lock = threading.Lock()
        self._first: tuple[int, int] | None = None
        self._frames: np.ndarray[Any, np.dtype[np.uint8]] | None = None

    def __len__(self) -> int:
        return len(self.timestamps)

    def add(self, picture: Image, timestamp: float) -> None:
        """Append an RGB `picture` shown from `timestamp` (seconds) on. Raises as `reserve` does."""
        self.fill(self.reserve((picture.height, picture.width), timestamp), picture)

    def reserve(self, own: tuple[int, int], timestamp: float) -> int:
        """The next place, for a picture of (height, width) `own` pixels shown from `timestamp` (seconds) on.

        Raises MediaError `too_many_pixels` when the whole stack would be too large.
        """
        self.expect(own)
        self.timestamps.append(timestamp)
        return len(self) - 1

    def expect(self, own: tuple[int, int]) -> None:
        """Take note that a picture of (height, width) `own` pixels comes. Raises as `reserve` does."""
        with self._lock:
            if self._first is None:
                self._first = own
                self._size = self._size or own
            assert self._size is not None
            if self._frames is None:
                self._frames = self._allocate(*self._size)
            self.changed += own != self._first

    def fill(self, place: int, picture: Image) -> None:
        """Put the RGB `picture`, which was expected, into `place`."""
        assert self._frames is not None and self._size is not None
        self._frames[place] = np.asarray(resize(picture, self._size))

    def _allocate(self, height: int, width: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
        self._limits.check_result(self._count, height, width, self._name)
        try:
            return np.empty((self._count, height, width, 3), np.uint8)
        except MemoryError as error:
            raise MediaError(f"{self._name}: not enough memory for its frames", code="too_many_pixels") from error

    def frames(self) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """uint8 (F, H, W, 3) with the F >= 1 frames added."""
        assert self._frames is not None
        return self._frames[: len(self)]

    def warnings(self) -> tuple[str, ...]:
        """What happened to the frames on the way in."""
        if not self.changed or self._first is None:
            return ()
        height, width = self._first
        return (f"size_changed: {self.changed} frames are not {width}x{height} like the first one; they were resized",)
