"""Open JPEG pictures, large ones at a reduced size: libjpeg can decode them at 1/2, 1/4 and 1/8.

The pixel limit applies to what is decoded, so a photo of 48 megapixels costs as much as one of 12. A JPEG of several
scans (a progressive one) holds the coefficients of all its pixels in memory at any scale, so there is a second limit
on these. Called by image.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pvc.errors import MediaError
from pvc.media.image_header import read_jpeg_frame
from pvc.media.limits import Limits
from pvc.media.source import Source

if TYPE_CHECKING:
    from PIL.JpegImagePlugin import JpegImageFile

COEFFICIENT_BYTES_PER_PIXEL = 20
"""Bytes of coefficients for each pixel of `Limits.max_pixels`: enough for 200 megapixels with halved colours."""

_SCALES = (1, 2, 4, 8)
# Baseline, extended and progressive pictures with Huffman codes. Lossless ones have no smaller scale.
_SCALABLE = frozenset((0xC0, 0xC1, 0xC2))


def open_jpeg(source: Source, limits: Limits) -> JpegImageFile:
    """Open a JPEG with Pillow at the largest size that `limits` allow. The header is read, no pixel is decoded.

    Args:
        source: an open JPEG.
        limits: bounds on the size at which it is decoded.

    Raises:
        MediaError: `corrupt_media`, `too_many_pixels`, `aspect_ratio`. For a damaged header, Pillow's errors are
            raised.
    """
    frame = read_jpeg_frame(source.file)
    if frame is None:
        raise MediaError(f"{source.name}: damaged jpeg header", code="corrupt_media")
    width, height = frame.width, frame.height
    scales = [scale for scale in _SCALES if frame.marker in _SCALABLE and scale <= min(width, height)]
    scale = limits.check_size(width, height, source.name, scales or (1,))
    max_bytes = COEFFICIENT_BYTES_PER_PIXEL * limits.max_pixels
    if frame.coefficient_bytes > max_bytes:
        raise MediaError(
            f"{source.name}: a progressive JPEG of {width}x{height} takes {frame.coefficient_bytes} bytes while it is "
            f"decoded; the limit is {max_bytes}; save it as a baseline JPEG, or scale it down first",
            code="too_many_pixels",
        )
    from PIL.JpegImagePlugin import JpegImageFile

    source.file.seek(0)
    # Image.open would limit the pixels in the header, not those that are decoded.
    image = JpegImageFile(source.file)
    if image.size != (width, height):
        raise MediaError(f"{source.name}: damaged jpeg header: it declares two sizes", code="corrupt_media")
    if scale > 1:
        image.draft(None, (width // scale, height // scale))
    return image


__all__ = ["COEFFICIENT_BYTES_PER_PIXEL", "open_jpeg"]
