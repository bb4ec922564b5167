"""Backgrounds as pixels: plain, graded, or with a texture as of a photograph (clouds, blobs, stripes, paper, checks).

A texture only mixes the two colours of the backdrop, so that text and shapes keep the distance from both that
`palette` gave them. It leaves out grain, which belongs to the camera's noise (`camera`). Used by `draw`.
"""

from __future__ import annotations

import functools
import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pvc.lab.synthetic.scene import UNITS, Backdrop

Floats = NDArray[np.float32]
_FIELDS = 24  # fields of clouds, blobs and paper; cut out and mirrored by the seed, they make thousands
_BANK_SIDE = 256  # pixels of a field, which shows 96 units
_BANK_UNITS = 96.0


def ground(backdrop: Backdrop, height: int, width: int, scale: float) -> Floats:
    """The background as float32 (height, width, 3) at `scale` pixels a unit."""
    canvas = np.empty((height, width, 3), np.float32)
    first = np.array(backdrop.colour, np.float32)
    if backdrop.colour2 is None:
        canvas[:] = first
        return canvas
    if backdrop.texture == "ramp":
        mix = _ramp(backdrop.angle, height, width)
    elif backdrop.texture in ("stripes", "checks"):
        mix = _pattern(backdrop, height, width, scale)
    else:
        mix = _field(backdrop.texture, backdrop.texture_seed, height, width, scale)
    np.multiply(mix[..., None], np.array(backdrop.colour2, np.float32) - first, out=canvas)
    canvas += first
    return canvas


@functools.lru_cache(maxsize=16)
def _axes(height: int, width: int) -> tuple[Floats, Floats]:
    across = np.linspace(-0.5, 0.5, width, dtype=np.float32)[None, :]
    return across, np.linspace(-0.5, 0.5, height, dtype=np.float32)[:, None]


def _ramp(angle: float, height: int, width: int) -> Floats:
    across, down = _axes(height, width)
    c, s = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    reach = abs(c) + abs(s)
    return 0.5 + across * np.float32(c / reach) + down * np.float32(s / reach)


def _pattern(backdrop: Backdrop, height: int, width: int, scale: float) -> Floats:
    """Soft stripes or checks, 6 to 21 units from one to the next."""
    across, down = _axes(height, width)
    wave = 2 * math.pi / (6 + backdrop.texture_seed % 16)
    c, s = math.cos(math.radians(backdrop.angle)), math.sin(math.radians(backdrop.angle))
    x, y = across * np.float32(width / scale * wave), down * np.float32(height / scale * wave)
    mix: Floats = np.sin(x * np.float32(c) + y * np.float32(s))
    if backdrop.texture == "checks":
        mix = mix * np.sin(y * np.float32(c) - x * np.float32(s))
    return np.clip(0.5 + 1.5 * mix, 0, 1)


def _field(texture: str, seed: int, height: int, width: int, scale: float) -> Floats:
    """A part of a stored field, chosen and mirrored by the seed and resized to the picture."""
    bank = _bank(texture, seed % _FIELDS)
    seed //= _FIELDS
    if seed & 1:
        bank = bank.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if seed & 2:
        bank = bank.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    # What is larger than the field shows it enlarged.
    zoom = max(1.0, height / scale / UNITS, width / scale / UNITS)
    w, h = (_BANK_SIDE * side / scale / zoom / _BANK_UNITS for side in (width, height))
    x, y = (_BANK_SIDE - w) * (seed % 101) / 100, (_BANK_SIDE - h) * (seed % 103) / 102
    part = bank.resize((width, height), Image.Resampling.BILINEAR, (x, y, x + w, y + h))
    return np.asarray(part, np.float32) * np.float32(1 / 255)


@functools.lru_cache(maxsize=3 * _FIELDS)
def _bank(texture: str, index: int) -> Image.Image:
    """One stored field, values 0 to 255."""
    generator = np.random.Generator(np.random.PCG64([len(texture), index]))
    if texture == "blobs":
        field = _octave(generator, 9)
        field = 1 / (1 + np.exp(-8 * field))
    elif texture == "paper":
        field = 0.5 * _octave(generator, 3) + 0.35 * _octave(generator, 96) + 0.4 * _octave(generator, 160)
    else:
        octaves = [(4, 1.0), (8, 0.6), (16, 0.4), (40, 0.25), (96, 0.15)]
        field = sum((weight * _octave(generator, side) for side, weight in octaves), np.zeros((1, 1)))
    low, high = np.quantile(field, (0.02, 0.98))
    scaled = np.clip((field - low) / (high - low), 0, 1) * 255
    return Image.fromarray(scaled.astype(np.uint8))


def _octave(generator: np.random.Generator, side: int) -> NDArray[np.float64]:
    """Value noise: random values on a side x side lattice, smooth between them."""
    lattice = Image.fromarray(generator.standard_normal((side, side)).astype(np.float32))
    smooth = lattice.resize((_BANK_SIDE, _BANK_SIDE), Image.Resampling.BICUBIC)
    return np.asarray(smooth, np.float64)
