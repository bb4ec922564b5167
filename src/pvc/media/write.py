"""Write pictures and H.264 videos for synthetic data, examples and tests.

A file appears under its name only when it is complete. There is no audio, no streaming and no choice of codec.
Called by pvc.lab.synthetic, pvc.testing and the examples.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from pvc.errors import PVCError, UsageError
from pvc.media.sampling import is_number
from pvc.media.source import to_printable_name
from pvc.media.types import Picture, Video, as_rgb, stack_frames

_IMAGE_FORMATS: dict[str, tuple[str, dict[str, Any]]] = {
    ".png": ("PNG", {}),
    ".jpg": ("JPEG", {"quality": 95}),
    ".jpeg": ("JPEG", {"quality": 95}),
    ".webp": ("WEBP", {"lossless": True}),
    ".bmp": ("BMP", {}),
}


def write_image(path: str | os.PathLike[str], image: Any) -> None:
    """Write a picture as PNG, JPEG, WebP (lossless) or BMP, by the suffix of the path.

    Args:
        path: the file to write.
        image: Picture, PIL picture or array (H, W[, 1, 3 or 4]).

    Raises:
        UsageError: another suffix, a value that is not a picture, or the file cannot be written.
    """
    target = Path(path)
    if target.suffix.lower() not in _IMAGE_FORMATS:
        raise UsageError(f"{target.name}: the name must end in one of {', '.join(_IMAGE_FORMATS)}")
    format_name, options = _IMAGE_FORMATS[target.suffix.lower()]
    picture = image.image if isinstance(image, Picture) else as_rgb(image)
    with _open_replacement(target) as file:
        picture.save(file, format_name, **options)


def write_video(
    path: str | os.PathLike[str],
    frames: Video | np.ndarray[Any, Any] | Sequence[Any],
    fps: float,
    crf: int = 18,
    times: Sequence[float] | None = None,
) -> None:
    """Write frames as an MP4: H.264, yuv420p, no audio.

    H.264 in this form needs even sides: odd ones are padded by repeating the last row or column. One thread encodes, so
    the bytes do not depend on the number of cores.

    Args:
        path: the file to write.
        frames: a Video (its timestamps are not used), uint8 or float (F, H, W, 3), or a list of pictures.
        fps: frames per second.
        crf: quality from 0 (lossless except for the colours) to 51.
        times: F times in seconds, increasing from 0, instead of `fps`; rounded to milliseconds.

    Raises:
        UsageError: wrong values, or the file cannot be written.
        MismatchError: frames of different sizes.
    """
    if not is_number(fps) or fps <= 0:
        raise UsageError(f"fps must be a positive number, not {fps!r}")
    if type(crf) is not int or not 0 <= crf <= 51:
        raise UsageError(f"crf must be a whole number from 0 to 51, not {crf!r}")
    array = frames.frames if isinstance(frames, Video) else stack_frames(frames)
    rate = Fraction(fps).limit_denominator(1001)
    if not Fraction(1, 1000) <= rate <= 1000:
        raise UsageError(f"fps must lie between 0.001 and 1000, not {fps!r}")
    times_ms = None if times is None else [round(1000 * time) for time in times]
    if times_ms is not None and (
        len(times_ms) != len(array) or times_ms[0] != 0 or any(a >= b for a, b in pairwise(times_ms))
    ):
        raise UsageError(f"times must be {len(array)} increasing seconds from 0, not {list(times or ())}")
    with _open_replacement(Path(path)) as file:
        _encode(file, array, rate, crf, times_ms)


def _encode(
    file: BinaryIO, array: np.ndarray[Any, np.dtype[np.uint8]], rate: Fraction, crf: int, times_ms: list[int] | None
) -> None:
    import av

    height, width = array.shape[1] + array.shape[1] % 2, array.shape[2] + array.shape[2] % 2
    padding = ((0, height - array.shape[1]), (0, width - array.shape[2]), (0, 0))
    try:
        with av.open(file, "w", format="mp4") as container:
            stream = container.add_stream("libx264", rate=rate, options={"crf": str(crf), "threads": "1"})
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            if times_ms is not None:
                stream.codec_context.time_base = Fraction(1, 1000)
            for i, picture in enumerate(array):
                frame = av.VideoFrame.from_ndarray(np.pad(picture, padding, mode="edge"), format="rgb24")
                if times_ms is not None:
                    frame.pts, frame.time_base = times_ms[i], Fraction(1, 1000)
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
    except av.FFmpegError as error:
        raise UsageError(f"a video of {width}x{height} at {rate} frames a second cannot be encoded: {error}") from error


@contextmanager
def _open_replacement(target: Path) -> Iterator[BinaryIO]:
    """Open a temporary file that replaces `target` at the end, and is removed if anything fails."""
    temp_path = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    try:
        with open(temp_path, "xb") as file:
            yield file
        os.replace(temp_path, target)
    except PVCError:
        raise
    except (OSError, ValueError) as error:  # the disk, or a size that the format does not allow
        raise UsageError(f"{to_printable_name(str(target))}: cannot be written: {error}") from error
    finally:
        temp_path.unlink(missing_ok=True)
