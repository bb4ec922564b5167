"""Effects of a camera and a file on rendered frames: blur, contrast, brightness, grain, noise, JPEG artefacts.

The only random values come from the scene's seeds. Called by `draw`.
"""

from __future__ import annotations

import functools
import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pvc.lab.synthetic.scene import CameraEffects

Floats = NDArray[np.float32]
_NOISE_OFFSETS = 1 << 16
_JPEG_ROWS = 8192  # of one compressed picture: frames are compressed in stacks, because each file costs time


@functools.lru_cache(maxsize=8)
def _get_noise_pool(count: int) -> Floats:
    """Return Gaussian noise. It is sampled once and read from other offsets, since sampling is expensive."""
    generator = np.random.Generator(np.random.PCG64(20250101))
    return generator.standard_normal(count + _NOISE_OFFSETS, dtype=np.float32)


def apply_effects(canvas: Floats, effects: CameraEffects, grain: float) -> NDArray[np.uint8]:
    """Apply camera effects to frames and round them to uint8.

    Args:
        canvas: float32 `(F, H, W, 3)`, changed in place.
        effects: what to apply.
        grain: strength of the background's grain in grey levels.

    Returns:
        uint8 `(F, H, W, 3)`.
    """
    if effects.blur > 0:
        canvas = _blur(canvas, effects.blur)
    canvas *= np.float32(effects.contrast)
    canvas += np.float32(
        128 * (1 - effects.contrast) + effects.brightness + 0.5
    )  # the half turns truncation into rounding
    count = canvas[0].size
    pool = _get_noise_pool(count)
    for f, frame in enumerate(canvas):
        # Grain belongs to the scene and is the same in all frames; sensor noise differs.
        for step, strength in ((0, grain), (7919 * (f + 1), effects.noise)):
            if strength > 0:
                offset = (effects.noise_seed + step) % _NOISE_OFFSETS
                frame += pool[offset : offset + count].reshape(frame.shape) * np.float32(strength)
    np.clip(canvas, 0, 255, out=canvas)
    frames = canvas.astype(np.uint8)
    return compress_jpeg(frames, effects.jpeg) if effects.jpeg else frames


def _blur(canvas: Floats, weight: float) -> Floats:
    """Blur `(F, H, W, 3)` over three pixels in both directions; `weight` is that of either neighbour."""
    side, middle = np.float32(weight), np.float32(1 - 2 * weight)
    for axis in (1, 2):
        first, last = [slice(None)] * 4, [slice(None)] * 4
        first[axis], last[axis] = slice(0, 1), slice(-1, None)
        padded = np.concatenate([canvas[tuple(first)], canvas, canvas[tuple(last)]], axis)
        before, after = [slice(None)] * 4, [slice(None)] * 4
        before[axis], after[axis] = slice(0, -2), slice(2, None)
        canvas = middle * canvas + side * (padded[tuple(before)] + padded[tuple(after)])
    return canvas


def compress_jpeg(frames: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    """Return frames after JPEG compression without chroma subsampling.

    Args:
        frames: uint8 `(F, H, W, 3)`.
        quality: JPEG quality, 1 to 100.
    """
    count, height, width, _ = frames.shape
    stack = max(1, _JPEG_ROWS // height)
    out = np.empty_like(frames)
    for start in range(0, count, stack):
        part = frames[start : start + stack]
        file = io.BytesIO()
        Image.fromarray(part.reshape(-1, width, 3)).save(file, "JPEG", quality=quality, subsampling=0)
        out[start : start + stack] = np.asarray(Image.open(file)).reshape(part.shape)
    return out
