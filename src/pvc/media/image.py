"""One picture from a file, bytes, a PIL picture or an array: upright, RGB, 8 bits, opaque.

Pillow is told the one format that the first bytes show, so no other plugin ever sees the data, and only
after the header's size has passed the limits. Of an animation this takes the first frame (animation.py
takes all). Called by `load`, by `probe` and by animation.py, which share how Pillow is opened.
"""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np

from pvc.errors import MediaError, UsageError
from pvc.media.image_header import declared_size
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
    # What damaged files provoke inside the plugins; Image.open itself treats the first three as "not this format".
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
    # Only where the caller turns warnings into errors.
    Warning,
)
"""Everything Pillow is known to raise for damaged data."""

_ORIENTATION = 0x0112
_ADVICE = "scale it down first, or save it as JPEG, which is decoded at a reduced size"


def load_image(source: Any, limits: Limits = DEFAULT_LIMITS) -> Picture:
    """The picture in a path, bytes, a PIL picture, or an array (H, W[, 1, 3 or 4]) of uint8 or floats in [0, 1].

    EXIF orientation is applied, 16 bits are scaled to 8, transparency is composited on white, an animation gives
    its first frame. Raises MediaError (`not_found`, `empty_media`, `unsupported_format`, `too_many_bytes`,
    `too_many_pixels`, `aspect_ratio`, `corrupt_media`), ForbiddenError (addresses, devices, pipes, directories)
    and UsageError (wrong types, shapes and values).
    """
    if is_file_source(source):
        with open_source(source, limits) as opened:
            return read_image(opened, limits)
    from PIL import Image as pil

    if isinstance(source, pil.Image):
        return _from_pil(source, limits)
    if hasattr(source, "__array__"):
        return _from_array(np.asarray(source), limits)
    raise UsageError(f"cannot read a picture from a {type(source).__name__}: give a path, bytes, PIL picture or array")


def read_image(source: Source, limits: Limits) -> Picture:
    """The (first) picture of an open file. Same errors as `load_image`."""
    image = open_pillow(source, limits)
    try:
        image.load()
    except PILLOW_ERRORS as error:
        raise broken(source.name, error) from error
    upright, warnings = _upright(image)
    return Picture(to_rgb(upright, source.name), source.name, source.format.name, warnings)


def open_pillow(source: Source, limits: Limits) -> Image:
    """Pillow's picture of an open file, header read and within `limits`, nothing decoded yet.

    A JPEG of more pixels has the size at which it will be decoded.
    """
    form = source.format
    if form.kind != "image":
        raise MediaError(f"{source.name}: this is a video ({form.name}), not a picture", code="unsupported_format")
    try:
        return open_jpeg(source, limits) if form.name == "jpeg" else _open_unscaled(source, limits)
    except PILLOW_ERRORS as error:
        raise broken(source.name, error) from error


def _open_unscaled(source: Source, limits: Limits) -> Image:
    """`open_pillow` for formats that are decoded at their full size."""
    form = source.format
    size = declared_size(form.name, source.file)
    if size is None:
        raise MediaError(f"{source.name}: damaged {form.name} header", code="corrupt_media")
    width, height = size
    limits.check_size(width, height, source.name, advice=_ADVICE)
    from PIL import Image as pil

    source.file.seek(0)
    try:
        image = pil.open(source.file, formats=[form.reader])
    except (pil.DecompressionBombError, pil.DecompressionBombWarning) as error:
        # Pillow's own limit; it lies above ours unless a caller raised ours.
        raise MediaError(f"{source.name}: {error}", code="too_many_pixels") from error
    limits.check_size(*image.size, source.name, advice=_ADVICE)
    return image


def orientation(image: Image) -> int:
    """The EXIF orientation, 1 to 8; anything else counts as 1. Raises PILLOW_ERRORS for damaged EXIF data."""
    value = image.getexif().get(_ORIENTATION, 1)
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def to_rgb(image: Image, name: str) -> Image:
    """`rgb_from_pil` with Pillow's errors as MediaError `corrupt_media`."""
    try:
        return rgb_from_pil(image)
    except PILLOW_ERRORS as error:
        raise broken(name, error) from error


def broken(name: str, error: BaseException) -> MediaError:
    """The MediaError for what Pillow said about a file, on one line."""
    detail = " ".join(str(error).split()) or type(error).__name__
    return MediaError(f"{name}: damaged picture: {detail[:200]}", code="corrupt_media")


def _upright(image: Image) -> tuple[Image, tuple[str, ...]]:
    """Turned and mirrored as EXIF says. Damaged EXIF data only costs the orientation, as in every viewer."""
    from PIL.Image import Transpose

    turns = {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }
    try:
        turn = turns.get(orientation(image))
    except PILLOW_ERRORS:
        return image, ("exif_ignored: the EXIF data is damaged",)
    return (image if turn is None else image.transpose(turn)), ()


def _from_pil(image: Image, limits: Limits) -> Picture:
    name = "<PIL picture>"
    if 0 in image.size:
        raise UsageError(f"a picture of {image.width}x{image.height} has no pixels")
    limits.check_size(*image.size, name)
    try:
        image.load()
    except PILLOW_ERRORS as error:
        raise broken(name, error) from error
    upright, warnings = _upright(image)
    try:
        rgb = rgb_from_pil(upright)
    except ValueError as error:
        raise UsageError(f"a PIL picture of mode {image.mode} cannot be used: {error}") from error
    return Picture(rgb, name, "pil", warnings)


def _from_array(array: np.ndarray[Any, Any], limits: Limits) -> Picture:
    name = "<array>"
    if array.ndim in (2, 3) and 0 not in array.shape:
        limits.check_size(array.shape[1], array.shape[0], name)
    return Picture(rgb_from_array(array), name, "array")
