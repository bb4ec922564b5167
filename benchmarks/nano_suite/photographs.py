"""Photograph-like pictures from noise: clouds, hills, bokeh, wood, grass, water, stone, a portrait.

The model is trained on drawings and screens only, and its answer should say so. Called by `outside.py`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter

SCENES = ("clouds", "hills", "bokeh", "wood", "grass", "water", "stone", "portrait")


@dataclass
class Photograph:
    """A rendered photograph-like picture. It has no text, and the text attributes of an empty canvas.

    Attributes:
        image: the picture.
        narrowest: as in `Canvas`.
        outside: as in `Canvas`.
    """

    image: Image.Image
    narrowest: float = math.inf
    outside: tuple[str, ...] = ()

    def finish(self) -> Image.Image:
        """Return the picture."""
        return self.image


def make_photograph(scene: str, size: tuple[int, int], seed: int) -> Photograph:
    """Render a scene.

    Args:
        scene: one of `SCENES`.
        size: width and height in pixels.
        seed: seed of the noise.
    """
    rng = np.random.default_rng(seed)
    pixels = _PAINTERS[scene](rng, size[0], size[1])
    pixels = pixels + rng.normal(0, 3.0, pixels.shape)  # the grain of a sensor
    image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    return Photograph(image.filter(ImageFilter.GaussianBlur(0.6)))


def _noise(rng: np.random.Generator, width: int, height: int, cells: tuple[int, int], octaves: int = 5) -> np.ndarray:
    """Generate fractal noise in 0..1, `(height, width)`; `cells` are those of the coarsest octave, across and down."""
    total, weight = np.zeros((height, width)), 0.0
    for octave in range(octaves):
        across, down = (min(count * 2**octave + 1, side) for count, side in zip(cells, (width, height), strict=True))
        coarse = Image.fromarray(rng.random((max(2, down), max(2, across))).astype(np.float32))
        total += np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)) * 0.55**octave
        weight += 0.55**octave
    total /= weight
    low, high = np.percentile(total, [1, 99])
    return np.clip((total - low) / (high - low), 0, 1)


def _blend(amount: np.ndarray, low: tuple[int, int, int], high: tuple[int, int, int]) -> np.ndarray:
    """Blend two colours by amounts `(H, W)`; returns `(H, W, 3)`."""
    return np.asarray(low, float) * (1 - amount[..., None]) + np.asarray(high, float) * amount[..., None]


def _down(width: int, height: int) -> np.ndarray:
    return np.repeat(np.linspace(0, 1, height)[:, None], width, axis=1)


def _clouds(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    sky = _blend(_down(width, height), (70, 120, 190), (170, 200, 230))
    cover = np.clip(_noise(rng, width, height, (3, 3), 6) * 1.8 - 0.7, 0, 1)
    shade = 190 + 60 * _noise(rng, width, height, (5, 5))
    return sky * (1 - cover[..., None]) + shade[..., None] * cover[..., None]


def _hills(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    warm = int(rng.integers(0, 90))
    pixels = _blend(_down(width, height) ** 0.8, (90 + warm, 130, 190 - warm), (240, 205, 190 - warm))
    for layer in range(4):
        ridge = _noise(rng, width, 2, (3 + layer, 1), 5)[0]
        top = height * (0.35 + 0.15 * layer) + (ridge - 0.5) * height * 0.25
        mask = np.arange(height)[:, None] > top[None, :]
        haze = 1 - layer / 4
        ground = _blend(_noise(rng, width, height, (20, 20)), (30, 50, 30), (70, 95, 55)) * (1 - 0.6 * haze)
        pixels = np.where(mask[..., None], ground + np.asarray((150, 165, 185)) * 0.6 * haze, pixels)
    return pixels


def _bokeh(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    pixels = _blend(_noise(rng, width, height, (2, 2), 3), (15, 18, 35), (70, 45, 40))
    across, down = np.meshgrid(np.arange(width), np.arange(height))
    for _ in range(28):
        x, y, radius = rng.uniform(0, width), rng.uniform(0, height), rng.uniform(0.03, 0.11) * min(width, height)
        edge = np.clip((radius - np.hypot(across - x, down - y)) / (radius * 0.25), 0, 1)
        light = np.asarray((rng.uniform(150, 255), rng.uniform(90, 210), rng.uniform(40, 180)))
        pixels = pixels + edge[..., None] * light * rng.uniform(0.25, 0.6)
    return pixels


def _wood(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    bend = _noise(rng, width, height, (2, 6), 4)
    rings = 0.5 + 0.5 * np.sin(2 * math.pi * (bend * 7 + _down(width, height) * 4))
    fibre = _noise(rng, width, height, (4, 90), 3)
    return _blend(0.55 * rings + 0.45 * fibre, (92, 56, 30), (196, 142, 88))


def _grass(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    blades = _noise(rng, width, height, (70, 12), 4)
    light = _noise(rng, width, height, (3, 3), 3)
    return _blend(blades, (24, 52, 14), (128, 172, 66)) * (0.65 + 0.5 * light[..., None])


def _water(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    waves = _noise(rng, width, height, (6, 30), 5)
    pixels = _blend(waves * (0.5 + 0.5 * _down(width, height)), (18, 58, 88), (150, 196, 214))
    glints = np.clip(_noise(rng, width, height, (20, 80), 3) * 4 - 3.1, 0, 1)
    return pixels + glints[..., None] * 160


def _stone(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    rough = _noise(rng, width, height, (9, 9), 6)
    stain = _noise(rng, width, height, (2, 2), 3)
    cracks = np.clip(1 - np.abs(_noise(rng, width, height, (4, 4), 5) - 0.5) * 40, 0, 1)
    return _blend(0.6 * rough + 0.4 * stain, (84, 78, 72), (188, 182, 172)) * (1 - 0.6 * cracks[..., None])


def _portrait(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    """Render a soft figure in front of a blurred room."""
    pixels = _blend(_noise(rng, width, height, (3, 3), 3), (60, 70, 84), (176, 160, 140))
    across, down = np.meshgrid(np.linspace(-1, 1, width) * width / height, np.linspace(-1, 1, height))
    skin = np.asarray(((224, 178, 150), (172, 122, 92), (110, 74, 54))[int(rng.integers(3))], float)
    light = 0.8 + 0.25 * np.clip(-across * 0.8 - down * 0.3, -1, 1) + 0.06 * _noise(rng, width, height, (12, 12), 4)

    def soft(x: float, y: float, wide: float, tall: float, blur: float = 12) -> np.ndarray:
        reach = np.hypot((across - x) / wide, (down - y) / tall)
        return np.clip((1 - reach) * blur, 0, 1)[..., None]

    cloth = np.asarray(rng.uniform(30, 170, 3))
    hair = np.asarray(rng.uniform(15, 80)) * np.asarray((1.0, 0.75, 0.55))
    for mask, colour in (
        (soft(0, 1.15, 0.85, 0.75), cloth),
        (soft(0, -0.28, 0.46, 0.58), hair),
        (soft(0, 0.35, 0.17, 0.4), skin * 0.85),
        (soft(0, -0.12, 0.36, 0.5), skin),
        (soft(-0.14, -0.18, 0.055, 0.03, 4), skin * 0.25),
        (soft(0.14, -0.18, 0.055, 0.03, 4), skin * 0.25),
        (soft(0, 0.0, 0.05, 0.1, 2), skin * 0.88),
        (soft(0, 0.16, 0.11, 0.03, 4), np.asarray((150, 70, 70))),
    ):
        pixels = pixels * (1 - mask) + colour * light[..., None] * mask
    return pixels


_PAINTERS = {
    "clouds": _clouds,
    "hills": _hills,
    "bokeh": _bokeh,
    "wood": _wood,
    "grass": _grass,
    "water": _water,
    "stone": _stone,
    "portrait": _portrait,
}
