"""Rotate and mirror decoded frames for display: the eight cases of a display matrix.

FFmpeg reads the matrix from the container or the bitstream and leaves it to the caller to apply it. A matrix that is
neither a quarter turn nor a flip counts as the nearest one; scale and offset are ignored, as players do.
Called by resizing.py for decoded frames, and by mp4.py and container.py for the size that a header declares.
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
    """What to do with a stored frame before it is displayed, in this order.

    Attributes:
        transpose: swap rows and columns.
        mirror: swap left and right.
        flip: swap top and bottom.
    """

    transpose: bool = False
    mirror: bool = False
    flip: bool = False

    @classmethod
    def from_matrix(cls, a: int, b: int, c: int, d: int) -> Orientation:
        """Build the orientation of a display matrix.

        The matrix displays the pixel (x, y) at (a*x + c*y, b*x + d*y), y pointing down.

        Args:
            a: factor from x to x.
            b: factor from x to y.
            c: factor from y to x.
            d: factor from y to y.
        """
        if abs(a) + abs(d) >= abs(b) + abs(c):
            return cls(False, a < 0, d < 0)
        return cls(True, c < 0, b < 0)

    def apply(self, pixels: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Apply the orientation to pixels (H, W, 3). Return a contiguous array, (W, H, 3) if it is transposed."""
        if self.transpose:
            pixels = pixels.transpose(1, 0, 2)
        if self.mirror:
            pixels = pixels[:, ::-1]
        if self.flip:
            pixels = pixels[::-1]
        return np.ascontiguousarray(pixels)

    def apply_to_size(self, width: int, height: int) -> tuple[int, int]:
        """Return (width, height) as displayed.

        Args:
            width: pixels of the stored frame.
            height: pixels of the stored frame.
        """
        return (height, width) if self.transpose else (width, height)


UPRIGHT = Orientation()


def get_frame_orientation(frame: VideoFrame) -> Orientation:
    """Return the orientation of a decoded frame; UPRIGHT without a display matrix."""
    data: Any = frame.side_data.get("DISPLAYMATRIX")  # a buffer
    if data is None or len(matrix := bytes(data)) < _MATRIX_BYTES:
        return UPRIGHT
    a, b, _, c, d = struct.unpack_from("5i", matrix)
    return Orientation.from_matrix(a, b, c, d)


__all__ = ["UPRIGHT", "Orientation", "get_frame_orientation"]
