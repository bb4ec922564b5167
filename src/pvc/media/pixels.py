"""Convert any pixels to 8-bit RGB: Pillow pictures of every mode, and arrays.

16-bit values are scaled, not clipped; transparency is composited on white. Called by the loaders, by
`Video.from_frames` and by the writers.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import numpy as np

from pvc.errors import MediaError, UsageError
from pvc.media.limits import Limits

if TYPE_CHECKING:
    from PIL.Image import Image

# Rounding in float32 can make a value slightly larger than 1.
_FLOAT_TOLERANCE = 1e-5


def rgb_from_pil(image: Image) -> Image:
    """Convert `image` to a new RGB picture of the same size, with transparency composited on white.

    Raises:
        ValueError: mode F outside 0..1, or a mode that Pillow cannot convert. Pillow's errors are raised if the pixels
            cannot be decoded.
    """
    from PIL import Image as pil

    if image.mode.startswith("I"):  # I;16 and its byte orders from a 16-bit file, I from older code
        image = _convert_16_bit(image)
    elif image.mode == "F":
        return rgb_from_array(np.asarray(image))
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        canvas = pil.new("RGB", image.size, "white")
        canvas.paste(layer, mask=layer.getchannel("A"))
        return canvas
    return image.convert("RGB") if image.mode != "RGB" else image.copy()


def _convert_16_bit(image: Image) -> Image:
    """Convert 16-bit grey to mode L, or to LA if one grey value stands for transparency."""
    from PIL import Image as pil

    values = np.asarray(image)
    if values.size and (values.min() < 0 or values.max() > 65535):
        raise ValueError(f"values {values.min()}..{values.max()} are not 16-bit grey")
    grey = pil.fromarray(((values.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8))
    transparent_value = image.info.get("transparency")
    if not isinstance(transparent_value, int):
        return grey
    alpha = pil.fromarray(np.where(values == transparent_value, 0, 255).astype(np.uint8))
    return pil.merge("LA", (grey, alpha))


def rgb_from_array(array: np.ndarray[Any, Any]) -> Image:
    """Convert an array (H, W), (H, W, 1), (H, W, 3) or (H, W, 4: RGBA), uint8 or float in [0, 1], to an RGB picture.

    Raises:
        UsageError: any other shape, type or range.
    """
    from PIL import Image as pil

    if array.ndim == 2:
        array = array[:, :, None]
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4) or 0 in array.shape:
        raise UsageError(f"a picture has the shape (H, W) or (H, W, 1, 3 or 4), not {array.shape}")
    values = np.ascontiguousarray(to_uint8(array))
    if values.shape[2] == 4:
        return rgb_from_pil(pil.fromarray(values))
    return pil.fromarray(values if values.shape[2] == 3 else np.repeat(values, 3, axis=2))


def to_uint8(array: np.ndarray[Any, Any]) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Return uint8 unchanged, floats in [0, 1] scaled and rounded. Raise UsageError for other types and ranges."""
    if array.dtype == np.uint8:
        return array
    if not np.issubdtype(array.dtype, np.floating):
        raise UsageError(f"pixels are uint8 or float in [0, 1], not {array.dtype}")
    low, high = float(array.min()), float(array.max())
    if not (low >= -_FLOAT_TOLERANCE and high <= 1 + _FLOAT_TOLERANCE):  # false for NaN too
        raise UsageError(f"float pixels must lie in [0, 1]; these lie in [{low:g}, {high:g}]")
    scaled: np.ndarray[Any, np.dtype[np.uint8]] = np.rint(np.clip(array, 0, 1) * 255).astype(np.uint8)
    return scaled


def resize(image: Image, size: tuple[int, int]) -> Image:
    """Resize `image` with a bicubic filter; the aspect ratio may change.

    Args:
        image: the picture.
        size: (height, width) in pixels.
    """
    from PIL.Image import Resampling

    height, width = size
    return image if image.size == (width, height) else image.resize((width, height), Resampling.BICUBIC)


def check_target_size(size: tuple[int, int] | None) -> None:
    """Raise UsageError unless `size` is None or (height, width) in integer pixels of 1 or more."""
    if size is None:
        return
    is_valid = isinstance(size, (tuple, list)) and all(type(side) is int and side >= 1 for side in size)
    if not is_valid or len(size) != 2:
        raise UsageError(f"size must be (height, width) in whole pixels, not {size!r}")


class FrameStack:
    """The frames that were picked so far, in one array that is allocated once and never grows.

    Several threads may fill different slots at the same time.

    Args:
        count: maximum number of frames.
        size: (height, width) of the result, or None for the size of the first frame.
        limits: bounds on the whole array.
        name: file name for error messages.

    Attributes:
        timestamps: seconds of the frames that were added.
        size_changes: number of frames whose size differs from that of the first one; they are resized.
    """

    def __init__(self, count: int, size: tuple[int, int] | None, limits: Limits, name: str) -> None:
        self.timestamps: list[float] = []
        self.size_changes = 0
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
        """Append an RGB picture.

        Args:
            picture: the frame.
            timestamp: seconds at which it is displayed.

        Raises:
            MediaError: as `reserve`.
        """
        self.fill(self.reserve((picture.height, picture.width), timestamp), picture)

    def reserve(self, frame_size: tuple[int, int], timestamp: float) -> int:
        """Reserve the next slot for a frame.

        Args:
            frame_size: (height, width) in pixels before resizing.
            timestamp: seconds at which the frame is displayed.

        Returns:
            The number of the slot.

        Raises:
            MediaError: `too_many_pixels`, the whole stack would be too large.
        """
        self.expect(frame_size)
        self.timestamps.append(timestamp)
        return len(self) - 1

    def expect(self, frame_size: tuple[int, int]) -> None:
        """Announce a frame of (height, width) `frame_size` pixels. Raises as `reserve`."""
        with self._lock:
            if self._first is None:
                self._first = frame_size
                self._size = self._size or frame_size
            assert self._size is not None
            if self._frames is None:
                self._frames = self._allocate(*self._size)
            self.size_changes += frame_size != self._first

    def fill(self, index: int, picture: Image) -> None:
        """Copy an RGB picture into a slot.

        Args:
            index: number of the slot.
            picture: a frame that was announced by `expect` or `reserve`.
        """
        assert self._frames is not None and self._size is not None
        self._frames[index] = np.asarray(resize(picture, self._size))

    def _allocate(self, height: int, width: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
        self._limits.check_result(self._count, height, width, self._name)
        try:
            return np.empty((self._count, height, width, 3), np.uint8)
        except MemoryError as error:
            raise MediaError(f"{self._name}: not enough memory for its frames", code="too_many_pixels") from error

    def get_frames(self) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """Return uint8 (F, H, W, 3) with the F >= 1 frames added."""
        assert self._frames is not None
        return self._frames[: len(self)]

    def get_warnings(self) -> tuple[str, ...]:
        """Return the warnings about frames that were resized."""
        if not self.size_changes or self._first is None:
            return ()
        height, width = self._first
        return (
            f"size_changed: {self.size_changes} frames are not {width}x{height} like the first one; they were resized",
        )
