"""What a page is (frozen values in pixels) and how it is rendered with Pillow.

A canvas says everything that `render` needs, so its description identifies a sample. Used by the page tasks.
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from pvc.lab.synthetic.grounds import ground
from pvc.lab.synthetic.pages.faces import font
from pvc.lab.synthetic.scene import Backdrop
from pvc.lab.synthetic.vocabulary import Rgb

_FINE = 200  # pixels: shorter pictures are drawn twice as large, so that edges are smooth


@dataclass(frozen=True)
class Box:
    """A rectangle from (x0, y0) to (x1, y1), with rounded corners where `radius` is above 0."""

    x0: float
    y0: float
    x1: float
    y1: float
    fill: Rgb | None
    outline: Rgb | None = None
    line: float = 0.0
    radius: float = 0.0


@dataclass(frozen=True)
class Shape:
    """A circle, square, triangle, star or cross whose ink fills w x h about (x, y)."""

    name: str
    x: float
    y: float
    w: float
    h: float
    rgb: Rgb
    angle: float = 0.0


@dataclass(frozen=True)
class Words:
    """A line of text; `anchor` is Pillow's (horizontal l, m, r; vertical s is the baseline)."""

    text: str
    face: str
    size: float
    x: float
    y: float
    rgb: Rgb
    anchor: str = "ls"


def ink_box(words: Words) -> tuple[float, float, float, float]:
    """Return left, top, right and bottom of the ink of a line of text, in pixels of the canvas."""
    x0, y0, x1, y1 = font(words.face, 100).getbbox(words.text, anchor=words.anchor)
    k = words.size / 100
    return words.x + x0 * k, words.y + y0 * k, words.x + x1 * k, words.y + y1 * k


@dataclass(frozen=True)
class Polyline:
    """A line through points, with a dot of radius `dot` at each."""

    points: tuple[tuple[float, float], ...]
    rgb: Rgb
    width: float
    dot: float = 0.0


@dataclass(frozen=True)
class Cloud:
    """Noise over the whole canvas, as photographs have it: amplitude falls with frequency by `slope`.

    colour: how much the channels differ from each other, 0 for grey.
    """

    seed: int
    slope: float
    contrast: float
    tint: Rgb
    colour: float


@dataclass(frozen=True)
class Finish:
    """What a camera and a file format do: blur (pixels), noise (grey levels), JPEG quality (0: none)."""

    blur: float = 0.0
    noise: float = 0.0
    noise_seed: int = 0
    jpeg: int = 0


Item = Box | Shape | Words | Polyline | Cloud


@dataclass(frozen=True)
class Canvas:
    """A picture of width x height pixels, from back to front."""

    width: int
    height: int
    backdrop: Backdrop
    items: tuple[Item, ...] = ()
    finish: Finish = Finish()

    def description(self) -> dict[str, Any]:
        """Return the canvas as values that JSON holds."""
        return _values(self)


@dataclass(frozen=True)
class Reel:
    """A clip: one canvas per frame, all of one size, and the seconds of the frames."""

    frames: tuple[Canvas, ...]
    timestamps: tuple[float, ...]

    def description(self) -> dict[str, Any]:
        """Return the clip as values that JSON holds."""
        return _values(self)


def _values(item: Any) -> Any:
    if isinstance(item, tuple):
        return [_values(part) for part in item]
    if hasattr(item, "__dataclass_fields__"):
        return {"is": type(item).__name__, **{f.name: _values(getattr(item, f.name)) for f in fields(item)}}
    return item


def render(canvas: Canvas, scale: float = 1.0) -> NDArray[np.uint8]:
    """Render a canvas to uint8 `(H, W, 3)`; `scale` multiplies its pixels."""
    width, height = round(canvas.width * scale), round(canvas.height * scale)
    fine = 2 if min(width, height) < _FINE else 1
    pixels = ground(canvas.backdrop, height, width, width / canvas.width)
    picture = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    if fine > 1:
        picture = picture.resize((width * fine, height * fine), Image.Resampling.BILINEAR)
    for item in canvas.items:
        picture = _put(picture, item, scale * fine)
    if fine > 1:
        picture = picture.reduce(fine)
    return _finished(picture, canvas.finish, scale)


def _put(picture: Image.Image, item: Item, k: float) -> Image.Image:
    if isinstance(item, Cloud):
        return _clouded(picture, item)
    pen = ImageDraw.Draw(picture)
    if isinstance(item, Box):
        box = tuple(round(v * k) for v in (item.x0, item.y0, item.x1, item.y1))
        line = max(1, round(item.line * k)) if item.outline else 0
        pen.rounded_rectangle(box, round(item.radius * k), item.fill, item.outline, line)
    elif isinstance(item, Words):
        size = max(1, round(item.size * k))
        pen.text((item.x * k, item.y * k), item.text, item.rgb, font(item.face, size), anchor=item.anchor)
    elif isinstance(item, Polyline):
        points = [(x * k, y * k) for x, y in item.points]
        if len(points) > 1:
            pen.line(points, item.rgb, max(1, round(item.width * k)), joint="curve")
        for x, y in points if item.dot else ():
            r = item.dot * k
            pen.ellipse((x - r, y - r, x + r, y + r), item.rgb)
    else:
        _draw_shape(pen, item, k)
    return picture


def _draw_shape(pen: ImageDraw.ImageDraw, item: Shape, k: float) -> None:
    x, y, w, h = item.x * k, item.y * k, item.w * k / 2, item.h * k / 2
    if item.name == "circle":
        pen.ellipse((x - w, y - h, x + w, y + h), item.rgb)
        return
    c, s = math.cos(math.radians(item.angle)), math.sin(math.radians(item.angle))
    corners = [(x + (u * c - v * s) * w, y + (u * s + v * c) * h) for u, v in _OUTLINES[item.name]]
    pen.polygon(corners, item.rgb)


def _star() -> list[tuple[float, float]]:
    """Return the ten corners of a star, filling -1..1 both ways."""
    raw = []
    for i in range(10):
        radius, angle = 1.0 if i % 2 == 0 else 0.42, math.pi * i / 5
        raw.append((radius * math.sin(angle), -radius * math.cos(angle)))
    left, right = min(p[0] for p in raw), max(p[0] for p in raw)
    top, bottom = min(p[1] for p in raw), max(p[1] for p in raw)
    return [((2 * x - left - right) / (right - left), (2 * y - top - bottom) / (bottom - top)) for x, y in raw]


_ARM = 0.34
_OUTLINES: dict[str, list[tuple[float, float]]] = {
    "square": [(-1, -1), (1, -1), (1, 1), (-1, 1)],
    "triangle": [(0, -1), (1, 1), (-1, 1)],
    "star": _star(),
    "cross": [
        (-_ARM, -1), (_ARM, -1), (_ARM, -_ARM), (1, -_ARM), (1, _ARM), (_ARM, _ARM),
        (_ARM, 1), (-_ARM, 1), (-_ARM, _ARM), (-1, _ARM), (-1, -_ARM), (-_ARM, -_ARM),
    ],
}  # fmt: skip


def _clouded(picture: Image.Image, cloud: Cloud) -> Image.Image:
    """Add noise whose amplitude falls with frequency, each channel partly its own."""
    rng = np.random.default_rng(cloud.seed)
    height, width = min(picture.height, 96), min(picture.width, 96)
    down = np.fft.fftfreq(height)[:, None] * height
    across = np.fft.rfftfreq(width)[None, :] * width
    fall = 1 / np.maximum(1.0, np.sqrt(down**2 + across**2)) ** cloud.slope
    planes = []
    for _ in range(4):
        waves = fall * (rng.normal(size=fall.shape) + 1j * rng.normal(size=fall.shape))
        plane = np.fft.irfft2(waves, s=(height, width))
        planes.append((plane - plane.mean()) / (plane.std() + 1e-9))
    grey = planes[3]
    pixels = np.stack([(grey + cloud.colour * planes[i]) * cloud.contrast + cloud.tint[i] for i in range(3)], -1)
    field = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    return field.resize(picture.size, Image.Resampling.BICUBIC)


def _finished(picture: Image.Image, finish: Finish, scale: float) -> NDArray[np.uint8]:
    if finish.blur:
        picture = picture.filter(ImageFilter.GaussianBlur(finish.blur * scale))
    if finish.jpeg:
        held = io.BytesIO()
        picture.save(held, "JPEG", quality=finish.jpeg)
        picture = Image.open(held).convert("RGB")
    pixels = np.asarray(picture)
    if finish.noise:
        rng = np.random.default_rng(finish.noise_seed)
        noisy = pixels + rng.standard_normal(pixels.shape, np.float32) * np.float32(finish.noise)
        pixels = np.clip(noisy, 0, 255).astype(np.uint8)
    return np.array(pixels)


__all__ = ["Box", "Canvas", "Cloud", "Finish", "Item", "Polyline", "Reel", "Shape", "Words", "ink_box", "render"]
