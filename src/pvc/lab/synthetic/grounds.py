"""Renders backgrounds: plain, graded, or textured as in photographs (clouds, blobs, stripes, paper, checks).

A texture only mixes the two colours of the backdrop, so that text and shapes keep the distance from both that
`palette` has set. Grain is added with the camera's noise (`camera`). Called by `draw` and `pages.canvas`.
"""

from __future__ import annotations

import functools
import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pvc.lab.synthetic.scene import UNITS, Backdrop

Floats = NDArray[np.float32]
_FIELDS = 24  # stored fields of clouds, blobs and paper; the seed cuts and mirrors them
_BANK_SIDE = 256  # pixels of a field
_BANK_UNITS = 96.0


def render_backdrop(backdrop: Backdrop, height: int, width: int, scale: float) -> Floats:
    """Render a background.

    Args:
        backdrop: what to render.
        height: pixels.
        width: pixels.
        scale: pixels of a unit.

    Returns:
        float32 `(height, width, 3)`.
    """
    canvas = np.empty((height, width, 3), np.float32)
    first = np.array(backdrop.colour, np.float32)
    if backdrop.colour2 is None:
        canvas[:] = first
        return canvas
    if backdrop.texture == "ramp":
        mix = _render_ramp(backdrop.angle, height, width)
    elif backdrop.texture in ("stripes", "checks"):
        mix = _render_pattern(backdrop, height, width, scale)
    else:
        mix = _render_field(backdrop.texture, backdrop.texture_seed, height, width, scale)
    np.multiply(mix[..., None], np.array(backdrop.colour2, np.float32) - first, out=canvas)
    canvas += first
    return canvas


@functools.lru_cache(maxsize=16)
def _get_axes(height: int, width: int) -> tuple[Floats, Floats]:
    across = np.linspace(-0.5, 0.5, width, dtype=np.float32)[None, :]
    return across, np.linspace(-0.5, 0.5, height, dtype=np.float32)[:, None]


def _render_ramp(angle: float, height: int, width: int) -> Floats:
    across, down = _get_axes(height, width)
    c, s = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    reach = abs(c) + abs(s)
    return 0.5 + across * np.float32(c / reach) + down * np.float32(s / reach)


def _render_pattern(backdrop: Backdrop, height: int, width: int, scale: float) -> Floats:
    """Return soft stripes or checks, 6 to 21 units apart."""
    across, down = _get_axes(height, width)
    wave = 2 * math.pi / (6 + backdrop.texture_seed % 16)
    c, s = math.cos(math.radians(backdrop.angle)), math.sin(math.radians(backdrop.angle))
    x, y = across * np.float32(width / scale * wave), down * np.float32(height / scale * wave)
    mix: Floats = np.sin(x * np.float32(c) + y * np.float32(s))
    if backdrop.texture == "checks":
        mix = mix * np.sin(y * np.float32(c) - x * np.float32(s))
    return np.clip(0.5 + 1.5 * mix, 0, 1)


def _render_field(texture: str, seed: int, height: int, width: int, scale: float) -> Floats:
    """Return a part of a stored field, chosen and mirrored by the seed and resized to the picture."""
    bank = _render_bank(texture, seed % _FIELDS)
    seed //= _FIELDS
    if seed & 1:
        bank = bank.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if seed & 2:
        bank = bank.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    # Pictures larger than the field get it enlarged.
    zoom = max(1.0, height / scale / UNITS, width / scale / UNITS)
    w, h = (_BANK_SIDE * side / scale / zoom / _BANK_UNITS for side in (width, height))
    x, y = (_BANK_SIDE - w) * (seed % 101) / 100, (_BANK_SIDE - h) * (seed % 103) / 102
    part = bank.resize((width, height), Image.Resampling.BILINEAR, (x, y, x + w, y + h))
    return np.asarray(part, np.float32) * np.float32(1 / 255)


@functools.lru_cache(maxsize=3 * _FIELDS)
def _render_bank(texture: str, index: int) -> Image.Image:
    """Return one stored field, values 0 to 255."""
    generator = np.random.Generator(np.random.PCG64([len(texture), index]))
    if texture == "blobs":
        field = _sample_octave(generator, 9)
        field = 1 / (1 + np.exp(-8 * field))
    elif texture == "paper":
        field = (
            0.5 * _sample_octave(generator, 3)
            + 0.35 * _sample_octave(generator, 96)
            + 0.4 * _sample_octave(generator, 160)
        )
    else:
        octaves = [(4, 1.0), (8, 0.6), (16, 0.4), (40, 0.25), (96, 0.15)]
        field = sum((weight * _sample_octave(generator, side) for side, weight in octaves), np.zeros((1, 1)))
    low, high = np.quantile(field, (0.02, 0.98))
    scaled = np.clip((field - low) / (high - low), 0, 1) * 255
    return Image.fromarray(scaled.astype(np.uint8))


def _sample_octave(generator: np.random.Generator, side: int) -> NDArray[np.float64]:
    """Return value noise: random values on a side x side lattice, smooth between them."""
    lattice = Image.fromarray(generator.standard_normal((side, side)).astype(np.float32))
    smooth = lattice.resize((_BANK_SIDE, _BANK_SIDE), Image.Resampling.BICUBIC)
    return np.asarray(smooth, np.float64)
