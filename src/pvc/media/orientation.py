"""How decoded frames are turned and mirrored to be shown: the eight cases of a display matrix.

FFmpeg reads the matrix from the container or the bitstream and leaves it to its callers to apply it. A matrix that is
neither a quarter turn nor a flip counts as the nearest one; its scale and its offset are ignored, as players do.
Called by resizing.py for decoded frames, and by container.py for the size that a header declares.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

_MATRIX_BYTES = 36  # nine numbers of 32 bits in the machine's byte order


@dataclass(frozen=True)
class Orientation:
    """What to do with a stored frame: `transpose` it, then `mirror` it left to right, then `flip` it upside down."""

    transpose: bool = False
    mirror: bool = False
    flip: bool = False

    @classmethod
    def from_matrix(cls, a: int, b: int, c: int, d: int) -> Orientation:
        """The orientation of a matrix that shows the pixel (x, y) at (a*x + c*y, b*x + d*y), y pointing down."""
        if abs(a) + abs(d) >= abs(b) + abs(c):
            return cls(False, a < 0, d < 0)
        return cls(True, c < 0, b < 0)

    def apply(self, pixels: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """(H, W, 3) as it is shown, contiguous: (W, H, 3) if it is transposed."""
        if self.transpose:
            pixels = pixels.transpose(1, 0, 2)
        if self.mirror:
            pixels = pixels[:, ::-1]
        if self.flip:
            pixels = pixels[::-1]
        return np.ascontiguousarray(pixels)

    def size(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) as shown, of a frame that is stored as `width` x `height`."""
        return (height, width) if self.transpose else (width, height)


UPRIGHT = Orientation()


def frame_orientation(frame: VideoFrame) -> Orientation:
    """The orientation of a decoded frame; UPRIGHT without a display matrix."""
    data: Any = frame.side_data.get("DISPLAYMATRIX")  # a buffer
    if data is None or len(matrix := bytes(data)) < _MATRIX_BYTES:
        return UPRIGHT
    a, b, _, c, d = struct.unpack_from("5i", matrix)
    return Orientation.from_matrix(a, b, c, d)


__all__ = ["UPRIGHT", "Orientation", "frame_orientation"]
