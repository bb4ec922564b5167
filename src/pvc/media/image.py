"""Load one picture from a file, bytes, a PIL picture or an array: upright, RGB, 8 bits, opaque.

Pillow is limited to the format that the first bytes show, so no other plugin reads the data. It is called only after
the size in the header has passed the limits. Of an animation the first frame is taken (animation.py takes all).
Called by `load`, `probe` and animation.py.
"""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np

from pvc.errors import MediaError, UsageError
from pvc.media.image_header import read_declared_size
from pvc.media.jpeg import open_jpeg
from pvc.media.limits import DEFAULT_LIMITS, Limits
from pvc.media.pixels import rgb_from_array, rgb_from_pil
from pvc.media.source import Source, is_file_source, open_source
from pvc.media.types import Picture

if TYPE_CHECKING:
    from PIL.Image import Image

PILLOW_ERRORS = (
    # Documented: OSError (broken or truncated data; UnidentifiedImageError is one), SyntaxError (plugins, on
    # headers), EOFError (no such frame), ValueError (values and text chunks out of bounds).
    OSError,
    SyntaxError,
    EOFError,
    ValueError,
    # Raised inside the plugins by damaged files; Image.open treats the first three as "not this format".
    IndexError,
    TypeError,
    struct.error,
    KeyError,
    AttributeError,
    AssertionError,
    OverflowError,
    ZeroDivisionError,
    MemoryError,
    NotImplementedError,
    RuntimeError,
    zlib.error,
    # Only if the caller turns warnings into errors.
    Warning,
)
"""All errors that Pillow is known to raise for damaged data."""

_ORIENTATION = 0x0112
_ADVICE = "scale it down first, or save it as JPEG, which is decoded at a reduced size"


def load_image(source: Any, limits: Limits = DEFAULT_LIMITS) -> Picture:
    """Load a picture from a path, bytes, a PIL picture or an array.

    EXIF orientation is applied, 16 bits are scaled to 8, and transparency is composited on white.

    Args:
        source: path, bytes, PIL picture, or array (H, W[, 1, 3 or 4]), uint8 or float in [0, 1]. Of an animation the
            first frame is taken.
        limits: bounds on the file and its size.

    Raises:
        MediaError: `not_found`, `empty_media`, `unsupported_format`, `too_many_bytes`, `too_many_pixels`,
            `aspect_ratio`, `corrupt_media`.
        ForbiddenError: URLs, devices, pipes, directories.
        UsageError: wrong types, shapes and values.
    """
    if is_file_source(source):
        with open_source(source, limits) as media_file:
            return read_image(media_file, limits)
    from PIL import Image as pil

    if isinstance(source, pil.Image):
        return _load_pil(source, limits)
    if hasattr(source, "__array__"):
        return _load_array(np.asarray(source), limits)
    raise UsageError(f"cannot read a picture from a {type(source).__name__}: give a path, bytes, PIL picture or array")


def read_image(source: Source, limits: Limits) -> Picture:
    """Decode the first picture of an open file. Raises the same errors as `load_image`.

    Args:
        source: the open file.
        limits: bounds on its size.
    """
    image = open_pillow(source, limits)
    try:
        image.load()
    except PILLOW_ERRORS as error:
        raise to_media_error(source.name, error) from error
    upright, warnings = _apply_exif_orientation(image)
    return Picture(to_rgb(upright, source.name), source.name, source.format.name, warnings)


def open_pillow(source: Source, limits: Limits) -> Image:
    """Open a file with Pillow: the header is read and within `limits`, no pixel is decoded.

    If a JPEG has more pixels than allowed, the picture has the size at which it will be decoded.

    Args:
        source: the open file.
        limits: bounds on its size.

    Raises:
        MediaError: `unsupported_format`, `too_many_pixels`, `aspect_ratio`, `corrupt_media`.
    """
    image_format = source.format
    if image_format.kind != "image":
        raise MediaError(
            f"{source.name}: this is a video ({image_format.name}), not a picture", code="unsupported_format"
        )
    try:
        return open_jpeg(source, limits) if image_format.name == "jpeg" else _open_unscaled(source, limits)
    except PILLOW_ERRORS as error:
        raise to_media_error(source.name, error) from error


def _open_unscaled(source: Source, limits: Limits) -> Image:
    """Open a file of a format that is decoded at its full size."""
    image_format = source.format
    size = read_declared_size(image_format.name, source.file)
    if size is None:
        raise MediaError(f"{source.name}: damaged {image_format.name} header", code="corrupt_media")
    width, height = size
    limits.check_size(width, height, source.name, advice=_ADVICE)
    from PIL import Image as pil

    source.file.seek(0)
    try:
        image = pil.open(source.file, formats=[image_format.reader])
    except (pil.DecompressionBombError, pil.DecompressionBombWarning) as error:
        # Pillow's limit is above ours unless a caller raised ours.
        raise MediaError(f"{source.name}: {error}", code="too_many_pixels") from error
    limits.check_size(*image.size, source.name, advice=_ADVICE)
    return image


def read_orientation(image: Image) -> int:
    """Return the EXIF orientation, 1 to 8; anything else counts as 1. Raises PILLOW_ERRORS for damaged EXIF data."""
    value = image.getexif().get(_ORIENTATION, 1)
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def to_rgb(image: Image, name: str) -> Image:
    """Convert a picture with `rgb_from_pil`; Pillow's errors become MediaError `corrupt_media`.

    Args:
        image: a Pillow picture.
        name: file name for the error message.
    """
    try:
        return rgb_from_pil(image)
    except PILLOW_ERRORS as error:
        raise to_media_error(name, error) from error


def to_media_error(name: str, error: BaseException) -> MediaError:
    """Build the MediaError for an error of Pillow, on one line.

    Args:
        name: file name for the error message.
        error: one of PILLOW_ERRORS.
    """
    detail = " ".join(str(error).split()) or type(error).__name__
    return MediaError(f"{name}: damaged picture: {detail[:200]}", code="corrupt_media")


def _apply_exif_orientation(image: Image) -> tuple[Image, tuple[str, ...]]:
    """Rotate and mirror as EXIF says. Damaged EXIF data only costs the orientation, as in every viewer."""
    from PIL.Image import Transpose

    transposes = {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }
    try:
        transpose_method = transposes.get(read_orientation(image))
    except PILLOW_ERRORS:
        return image, ("exif_ignored: the EXIF data is damaged",)
    return (image if transpose_method is None else image.transpose(transpose_method)), ()


def _load_pil(image: Image, limits: Limits) -> Picture:
    name = "<PIL picture>"
    if 0 in image.size:
        raise UsageError(f"a picture of {image.width}x{image.height} has no pixels")
    limits.check_size(*image.size, name)
    try:
        image.load()
    except PILLOW_ERRORS as error:
        raise to_media_error(name, error) from error
    upright, warnings = _apply_exif_orientation(image)
    try:
        rgb = rgb_from_pil(upright)
    except ValueError as error:
        raise UsageError(f"a PIL picture of mode {image.mode} cannot be used: {error}") from error
    return Picture(rgb, name, "pil", warnings)


def _load_array(array: np.ndarray[Any, Any], limits: Limits) -> Picture:
    name = "<array>"
    if array.ndim in (2, 3) and 0 not in array.shape:
        limits.check_size(array.shape[1], array.shape[0], name)
    return Picture(rgb_from_array(array), name, "array")
