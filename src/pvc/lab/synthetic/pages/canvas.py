"""Data classes of pages (in pixels), and how Pillow renders them.

A canvas holds all that `render` needs, so its description identifies a sample. Called by the page tasks and `make`.
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from pvc.lab.synthetic.grounds import render_backdrop
from pvc.lab.synthetic.pages.faces import load_font
from pvc.lab.synthetic.scene import Backdrop
from pvc.lab.synthetic.vocabulary import Rgb

_MIN_SIDE = 200  # pixels: smaller pictures are rendered twice as large, so that edges are smooth


@dataclass(frozen=True)
class Box:
    """A rectangle.

    Attributes:
        x0: left edge in pixels, like all lengths here.
        y0: top edge.
        x1: right edge.
        y1: bottom edge.
        fill: colour; None for an outline only.
        outline: colour of the outline; None for none.
        line: width of the outline.
        radius: radius of the corners.
    """

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
    """A coloured shape.

    Attributes:
        name: "circle", "square", "triangle", "star" or "cross".
        x: centre across.
        y: centre down.
        w: width of the ink.
        h: height of the ink.
        rgb: colour.
        angle: rotation in degrees.
    """

    name: str
    x: float
    y: float
    w: float
    h: float
    rgb: Rgb
    angle: float = 0.0


@dataclass(frozen=True)
class Words:
    """A line of text.

    Attributes:
        text: the characters.
        face: one of `faces.FACES`.
        size: font size in pixels.
        x: position of the anchor across.
        y: position of the anchor down.
        rgb: colour.
        anchor: Pillow's anchor: horizontal l, m or r; vertical s, which is the baseline.
    """

    text: str
    face: str
    size: float
    x: float
    y: float
    rgb: Rgb
    anchor: str = "ls"


def compute_ink_box(words: Words) -> tuple[float, float, float, float]:
    """Return left, top, right and bottom of the ink of a line of text, in pixels of the canvas."""
    x0, y0, x1, y1 = load_font(words.face, 100).getbbox(words.text, anchor=words.anchor)
    scale = words.size / 100
    return words.x + x0 * scale, words.y + y0 * scale, words.x + x1 * scale, words.y + y1 * scale


@dataclass(frozen=True)
class Polyline:
    """A line through points.

    Attributes:
        points: (x, y) of every point.
        rgb: colour.
        width: width of the line.
        dot: radius of the dot at every point; 0 for no dots.
    """

    points: tuple[tuple[float, float], ...]
    rgb: Rgb
    width: float
    dot: float = 0.0


@dataclass(frozen=True)
class Cloud:
    """Noise over the whole canvas, as in photographs: its amplitude falls with frequency.

    Attributes:
        seed: seed of the noise.
        slope: exponent by which the amplitude falls.
        contrast: standard deviation in grey levels.
        tint: mean colour.
        colour: how much the channels differ from each other; 0 for grey.
    """

    seed: int
    slope: float
    contrast: float
    tint: Rgb
    colour: float


@dataclass(frozen=True)
class Finish:
    """Effects of a camera and a file format.

    Attributes:
        blur: radius in pixels.
        noise: standard deviation in grey levels.
        noise_seed: seed of the noise.
        jpeg: quality; 0 for none.
    """

    blur: float = 0.0
    noise: float = 0.0
    noise_seed: int = 0
    jpeg: int = 0


Item = Box | Shape | Words | Polyline | Cloud


@dataclass(frozen=True)
class Canvas:
    """A picture.

    Attributes:
        width: pixels.
        height: pixels.
        backdrop: the background.
        items: what is on it, from back to front.
        finish: effects of camera and file.
    """

    width: int
    height: int
    backdrop: Backdrop
    items: tuple[Item, ...] = ()
    finish: Finish = Finish()

    def description(self) -> dict[str, Any]:
        """Return the canvas as JSON values."""
        return _to_values(self)


@dataclass(frozen=True)
class Reel:
    """A clip.

    Attributes:
        frames: one canvas per frame, all of one size.
        timestamps: seconds of the frames.
    """

    frames: tuple[Canvas, ...]
    timestamps: tuple[float, ...]

    def description(self) -> dict[str, Any]:
        """Return the clip as JSON values."""
        return _to_values(self)


def _to_values(item: Any) -> Any:
    if isinstance(item, tuple):
        return [_to_values(part) for part in item]
    if hasattr(item, "__dataclass_fields__"):
        return {"is": type(item).__name__, **{f.name: _to_values(getattr(item, f.name)) for f in fields(item)}}
    return item


def render(canvas: Canvas, scale: float = 1.0) -> NDArray[np.uint8]:
    """Render a canvas.

    Args:
        canvas: what to render.
        scale: factor on its pixels.

    Returns:
        uint8 `(H, W, 3)`.
    """
    width, height = round(canvas.width * scale), round(canvas.height * scale)
    oversample = 2 if min(width, height) < _MIN_SIDE else 1
    pixels = render_backdrop(canvas.backdrop, height, width, width / canvas.width)
    picture = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    if oversample > 1:
        picture = picture.resize((width * oversample, height * oversample), Image.Resampling.BILINEAR)
    for item in canvas.items:
        picture = _render_item(picture, item, scale * oversample)
    if oversample > 1:
        picture = picture.reduce(oversample)
    return _apply_finish(picture, canvas.finish, scale)


def _render_item(picture: Image.Image, item: Item, scale: float) -> Image.Image:
    if isinstance(item, Cloud):
        return _render_cloud(picture, item)
    pen = ImageDraw.Draw(picture)
    if isinstance(item, Box):
        box = tuple(round(v * scale) for v in (item.x0, item.y0, item.x1, item.y1))
        line = max(1, round(item.line * scale)) if item.outline else 0
        pen.rounded_rectangle(box, round(item.radius * scale), item.fill, item.outline, line)
    elif isinstance(item, Words):
        size = max(1, round(item.size * scale))
        pen.text((item.x * scale, item.y * scale), item.text, item.rgb, load_font(item.face, size), anchor=item.anchor)
    elif isinstance(item, Polyline):
        points = [(x * scale, y * scale) for x, y in item.points]
        if len(points) > 1:
            pen.line(points, item.rgb, max(1, round(item.width * scale)), joint="curve")
        for x, y in points if item.dot else ():
            r = item.dot * scale
            pen.ellipse((x - r, y - r, x + r, y + r), item.rgb)
    else:
        _render_shape(pen, item, scale)
    return picture


def _render_shape(pen: ImageDraw.ImageDraw, item: Shape, scale: float) -> None:
    x, y, w, h = item.x * scale, item.y * scale, item.w * scale / 2, item.h * scale / 2
    if item.name == "circle":
        pen.ellipse((x - w, y - h, x + w, y + h), item.rgb)
        return
    c, s = math.cos(math.radians(item.angle)), math.sin(math.radians(item.angle))
    corners = [(x + (u * c - v * s) * w, y + (u * s + v * c) * h) for u, v in _OUTLINES[item.name]]
    pen.polygon(corners, item.rgb)


def _compute_star() -> list[tuple[float, float]]:
    """Return the ten corners of a star that fills -1..1 both ways."""
    corners = []
    for i in range(10):
        radius, angle = 1.0 if i % 2 == 0 else 0.42, math.pi * i / 5
        corners.append((radius * math.sin(angle), -radius * math.cos(angle)))
    left, right = min(p[0] for p in corners), max(p[0] for p in corners)
    top, bottom = min(p[1] for p in corners), max(p[1] for p in corners)
    return [((2 * x - left - right) / (right - left), (2 * y - top - bottom) / (bottom - top)) for x, y in corners]


_ARM = 0.34
_OUTLINES: dict[str, list[tuple[float, float]]] = {
    "square": [(-1, -1), (1, -1), (1, 1), (-1, 1)],
    "triangle": [(0, -1), (1, 1), (-1, 1)],
    "star": _compute_star(),
    "cross": [
        (-_ARM, -1), (_ARM, -1), (_ARM, -_ARM), (1, -_ARM), (1, _ARM), (_ARM, _ARM),
        (_ARM, 1), (-_ARM, 1), (-_ARM, _ARM), (-1, _ARM), (-1, -_ARM), (-_ARM, -_ARM),
    ],
}  # fmt: skip


def _render_cloud(picture: Image.Image, cloud: Cloud) -> Image.Image:
    """Return a picture of noise whose amplitude falls with frequency and whose channels differ in part."""
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


def _apply_finish(picture: Image.Image, finish: Finish, scale: float) -> NDArray[np.uint8]:
    if finish.blur:
        picture = picture.filter(ImageFilter.GaussianBlur(finish.blur * scale))
    if finish.jpeg:
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=finish.jpeg)
        picture = Image.open(buffer).convert("RGB")
    pixels = np.asarray(picture)
    if finish.noise:
        rng = np.random.default_rng(finish.noise_seed)
        noisy = pixels + rng.standard_normal(pixels.shape, np.float32) * np.float32(finish.noise)
        pixels = np.clip(noisy, 0, 255).astype(np.uint8)
    return np.array(pixels)


__all__ = [
    "Box",
    "Canvas",
    "Cloud",
    "Finish",
    "Item",
    "Polyline",
    "Reel",
    "Shape",
    "Words",
    "compute_ink_box",
    "render",
]
