"""What a camera and a file do to drawn frames: blur, contrast, brightness, grain, noise, JPEG artefacts.

It leaves out what is drawn (`draw`). Chance enters only through the scene's seeds. Used by `draw`.
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
_JPEG_ROWS = 8192  # of one compressed picture: frames are compressed in stacks, since every file has a price


@functools.lru_cache(maxsize=8)
def _noise_pool(count: int) -> Floats:
    """Gaussian noise drawn once and read from another offset every time: a fresh draw costs more than a picture."""
    generator = np.random.Generator(np.random.PCG64(20250101))
    return generator.standard_normal(count + _NOISE_OFFSETS, dtype=np.float32)


def finish(canvas: Floats, look: CameraEffects, grain: float) -> NDArray[np.uint8]:
    """Apply the look to (F, H, W, 3) in place and round to uint8."""
    if look.blur > 0:
        canvas = blurred(canvas, look.blur)
    canvas *= np.float32(look.contrast)
    canvas += np.float32(128 * (1 - look.contrast) + look.brightness + 0.5)  # the half turns truncation into rounding
    count = canvas[0].size
    pool = _noise_pool(count)
    for f, frame in enumerate(canvas):
        # Grain belongs to the thing shown, so it stays from frame to frame; noise is the sensor's and does not.
        for step, strength in ((0, grain), (7919 * (f + 1), look.noise)):
            if strength > 0:
                offset = (look.noise_seed + step) % _NOISE_OFFSETS
                frame += pool[offset : offset + count].reshape(frame.shape) * np.float32(strength)
    np.clip(canvas, 0, 255, out=canvas)
    frames = canvas.astype(np.uint8)
    return compressed(frames, look.jpeg) if look.jpeg else frames


def blurred(canvas: Floats, weight: float) -> Floats:
    """A three-pixel blur in both directions of (F, H, W, 3), `weight` from either neighbour."""
    side, middle = np.float32(weight), np.float32(1 - 2 * weight)
    for axis in (1, 2):
        first, last = [slice(None)] * 4, [slice(None)] * 4
        first[axis], last[axis] = slice(0, 1), slice(-1, None)
        padded = np.concatenate([canvas[tuple(first)], canvas, canvas[tuple(last)]], axis)
        before, after = [slice(None)] * 4, [slice(None)] * 4
        before[axis], after[axis] = slice(0, -2), slice(2, None)
        canvas = middle * canvas + side * (padded[tuple(before)] + padded[tuple(after)])
    return canvas


def compressed(frames: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    """Frames (F, H, W, 3) as they come back from a JPEG file, whose colours are as fine as its greys."""
    count, height, width, _ = frames.shape
    stack = max(1, _JPEG_ROWS // height)
    out = np.empty_like(frames)
    for start in range(0, count, stack):
        part = frames[start : start + stack]
        file = io.BytesIO()
        Image.fromarray(part.reshape(-1, width, 3)).save(file, "JPEG", quality=quality, subsampling=0)
        out[start : start + stack] = np.asarray(Image.open(file)).reshape(part.shape)
    return out
