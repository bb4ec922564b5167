"""Renders scenes to pixels and patch labels: large masks, resized by bicubic filtering and blended by numpy.

So a picture looks like a real file that was resized to the model's input. The only random values come from the scene's
seeds. Called by `make`.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from pvc.lab.synthetic import fonts
from pvc.lab.synthetic.camera import apply_effects
from pvc.lab.synthetic.grounds import render_backdrop
from pvc.lab.synthetic.scene import PATCH, UNITS, Curve, Figure, Plate, Scene, Text
from pvc.lab.synthetic.veils import render_veil
from pvc.lab.synthetic.vocabulary import character_class, shape_class

Floats = NDArray[np.float32]
_SHAPE_MASTERS = (64, 256)
_SHAPE_PADDING = 0.25  # of the master's ink: more than one pixel of the picture for every shape of 4 pixels and more
_OVERSAMPLE = 4
COVERAGE = 0.25  # part of a patch that an object must cover to label it


@dataclass(frozen=True)
class _Stamp:
    """A mask in the picture; for text, also the patches that it labels.

    Attributes:
        x0: first column.
        y0: first row.
        mask: float32 `(h, w, 1)`, 0 to 1.
        wins: bool `(H / 8, W / 8)`, the patches that it labels.
        classes: int64, one per labelled patch.
    """

    x0: int
    y0: int
    mask: Floats
    wins: NDArray[np.bool_] | None = None
    classes: NDArray[np.int64] | None = None


def render(scene: Scene, size: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Render a scene and its patch labels.

    Args:
        scene: the scene.
        size: pixels of 64 units.

    Returns:
        Frames, uint8 `(F, H, W, 3)`, and labels, int64 `(F, H / 8, W / 8)`.
    """
    scale = size / UNITS
    width, height = (round(side * scale) for side in scene.extent)
    background = render_backdrop(scene.backdrop, height, width, scale)
    for plate in scene.plates:
        _render_plate(background, plate, scale)
    for curve in scene.curves:
        _render_curve(background, curve, scale)
    canvas = np.empty((scene.frames, height, width, 3), np.float32)
    canvas[:] = background
    labels = _render_figures(canvas, scene.figures, scale)
    for text in scene.texts:
        _render_text(canvas, labels, text, scale)
    for veil in scene.veils:
        render_veil(canvas, labels, veil, size)
    return apply_effects(canvas, scene.look, scene.backdrop.grain), labels


def _render_figures(canvas: Floats, figures: tuple[Figure, ...], scale: float) -> NDArray[np.int64]:
    """Render shapes onto `(F, H, W, 3)` and label patches by the visible part of each."""
    frames, height, width, _ = canvas.shape
    rows, columns = height // PATCH, width // PATCH
    labels = np.zeros((frames, rows, columns), np.int64)
    if not figures:
        return labels
    owner = np.zeros((frames, height, width), np.uint8)  # class of the topmost shape at every pixel
    for figure in figures:
        colour = np.array(figure.rgb, np.float32)
        patch_class = shape_class(figure.shape, figure.colour)
        stamp, stamp_point = None, None
        for f, point in enumerate(figure.track):
            if point is None:
                continue
            if stamp is None or point != stamp_point:
                stamp, stamp_point = _stamp_figure(figure, point, scale, (width, height)), point
            _blend(canvas[f], stamp, colour)
            h, w, _ = stamp.mask.shape
            region = owner[f, stamp.y0 : stamp.y0 + h, stamp.x0 : stamp.x0 + w]
            region[stamp.mask[..., 0] > 0.5] = patch_class
    best = np.full(labels.shape, COVERAGE, np.float32)
    for patch_class in {shape_class(f.shape, f.colour): None for f in figures}:
        part = (owner == patch_class).reshape(frames, rows, PATCH, columns, PATCH).mean((2, 4), np.float32)
        _assign_patches(labels, best, patch_class, part)
    return labels


def _render_text(canvas: Floats, labels: NDArray[np.int64], text: Text, scale: float) -> None:
    """Render a line onto the frames of `(F, H, W, 3)` that have it and label the patches under its characters."""
    colour = np.array(text.rgb, np.float32)
    stamp, stamp_point = None, None
    for f, point in enumerate(text.track):
        if point is None:
            continue
        if stamp is None or point != stamp_point:
            stamp, stamp_point = _stamp_text(text, point, scale, canvas.shape[2:0:-1]), point
        _blend(canvas[f], stamp, colour)
        assert stamp.wins is not None
        labels[f][stamp.wins] = stamp.classes


def _assign_patches(labels: NDArray[np.int64], best: Floats, patch_class: int, part: Floats) -> None:
    """Label the patches that a class covers more than any class before it."""
    wins = part >= best
    labels[wins] = patch_class
    best[wins] = part[wins]


def _blend(frame: Floats, stamp: _Stamp, colour: Floats) -> None:
    h, w, _ = stamp.mask.shape
    region = frame[stamp.y0 : stamp.y0 + h, stamp.x0 : stamp.x0 + w]
    region += stamp.mask * (colour - region)


# Plates and curves


def _render_plate(canvas: Floats, plate: Plate, scale: float) -> None:
    height, width, _ = canvas.shape
    x0, x1 = (_clamp((plate.x + side * plate.w / 2) * scale, width) for side in (-1, 1))
    y0, y1 = (_clamp((plate.y + side * plate.h / 2) * scale, height) for side in (-1, 1))
    edge = max(1, round(plate.border_width * scale))
    if plate.rgb is not None:
        canvas[y0:y1, x0:x1] = plate.rgb
    if plate.border is not None:
        for region in (canvas[y0 : y0 + edge, x0:x1], canvas[max(y0, y1 - edge) : y1, x0:x1]):
            region[:] = plate.border
        for region in (canvas[y0:y1, x0 : x0 + edge], canvas[y0:y1, max(x0, x1 - edge) : x1]):
            region[:] = plate.border


def _render_curve(canvas: Floats, curve: Curve, scale: float) -> None:
    height, width, _ = canvas.shape
    large = Image.new("L", (width * _OVERSAMPLE, height * _OVERSAMPLE), 0)
    pen, fine = ImageDraw.Draw(large), scale * _OVERSAMPLE
    points = [(x * fine, y * fine) for x, y in curve.points]
    pen.line(points, fill=255, width=max(1, round(curve.width * fine)), joint="curve")
    for x, y in points if curve.dot else ():
        r = curve.dot * fine
        pen.ellipse((x - r, y - r, x + r, y + r), fill=255)
    mask = np.asarray(large.reduce(_OVERSAMPLE), np.float32)[..., None] * np.float32(1 / 255)
    canvas += mask * (np.array(curve.rgb, np.float32) - canvas)


def _clamp(value: float, limit: int) -> int:
    return min(max(round(value), 0), limit)


# Shapes


def _get_outline(shape: str, angle: float) -> list[tuple[float, float]]:
    """Return the corners of a shape, rotated by `angle` degrees and stretched to -1..1 both ways (y points down)."""
    if shape == "circle":
        corners = [(math.cos(i * math.pi / 48), math.sin(i * math.pi / 48)) for i in range(96)]
    elif shape == "square":
        corners = [(-1.0, -1.0), (1.0, -1.0), (1.0, 1.0), (-1.0, 1.0)]
    elif shape == "triangle":
        corners = [(0.0, -1.0), (1.0, 0.75), (-1.0, 0.75)]
    elif shape == "star":
        spokes = [(1.0 if i % 2 == 0 else 0.42, math.pi * (i / 5 - 0.5)) for i in range(10)]
        corners = [(r * math.cos(a), r * math.sin(a)) for r, a in spokes]
    else:
        t = 0.34  # half the thickness of a bar of the cross
        quarter = [(-t, -1.0), (t, -1.0), (t, -t)]
        corners = [_rotate_quarters(x, y, turn) for turn in range(4) for x, y in quarter]
    c, s = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    rotated = [(x * c - y * s, x * s + y * c) for x, y in corners]
    xs, ys = [x for x, _ in rotated], [y for _, y in rotated]
    extents = [(min(v) + max(v), max(v) - min(v)) for v in (xs, ys)]
    return [((2 * x - extents[0][0]) / extents[0][1], (2 * y - extents[1][0]) / extents[1][1]) for x, y in rotated]


def _rotate_quarters(x: float, y: float, turn: int) -> tuple[float, float]:
    for _ in range(turn):
        x, y = -y, x
    return x, y


@functools.lru_cache(maxsize=1024)
def _render_shape_master(shape: str, angle: float, ink: int) -> Image.Image:
    """Return a shape with smooth edges whose ink is ink x ink pixels, with padding around it."""
    side = round(ink * (1 + 2 * _SHAPE_PADDING))
    large = side * _OVERSAMPLE
    canvas = Image.new("L", (large, large), 0)
    half = ink * _OVERSAMPLE / 2
    ImageDraw.Draw(canvas).polygon(
        [(large / 2 + half * x, large / 2 + half * y) for x, y in _get_outline(shape, angle)], fill=255
    )
    return canvas.reduce(_OVERSAMPLE)


def _stamp_figure(figure: Figure, point: tuple[float, float], scale: float, area: tuple[int, ...]) -> _Stamp:
    ink = next((m for m in _SHAPE_MASTERS if m >= 1.6 * max(figure.w, figure.h) * scale), _SHAPE_MASTERS[-1])
    master = _render_shape_master(figure.shape, figure.angle, ink)
    sx, sy = figure.w * scale / ink, figure.h * scale / ink
    return _Stamp(*_resize_mask(master, point[0] * scale, point[1] * scale, sx, sy, area))


# Text


def _stamp_text(text: Text, point: tuple[float, float], scale: float, area: tuple[int, ...]) -> _Stamp:
    master = fonts.get_master_size(text.font, math.ceil(text.h * scale))
    line = fonts.render_line(text.text, text.font, master, text.spacing)
    sx, sy = text.w * scale / line.width, text.h * scale / line.cap
    mask = line.mask
    boxes = np.array(line.boxes, np.float32)
    if text.angle:
        mask = mask.rotate(text.angle, Image.Resampling.BILINEAR, expand=True)
        c, s = math.cos(math.radians(text.angle)), math.sin(math.radians(text.angle))
        middle = (boxes[:, :2] + boxes[:, 2:]) / 2
        # Angles are small, so the rotated box is approximated by the straight one at the rotated centre.
        rotated = np.stack([middle[:, 0] * c + middle[:, 1] * s, middle[:, 1] * c - middle[:, 0] * s], 1)
        boxes += np.tile(rotated - middle, 2)
    cx, cy = point[0] * scale, point[1] * scale
    x0, y0, stamped = _resize_mask(mask, cx, cy, sx, sy, area)
    boxes *= np.array([sx, sy, sx, sy], np.float32)
    boxes += np.array([cx, cy, cx, cy], np.float32)
    parts = _compute_box_coverage(boxes, area)
    wins = parts.max(0) >= COVERAGE
    classes = np.array([character_class(c) for c in text.text if c != " "], np.int64)
    return _Stamp(x0, y0, stamped, wins, classes[parts.argmax(0)[wins]])


def _compute_box_coverage(boxes: Floats, area: tuple[int, ...]) -> Floats:
    """Return the part of every patch that each box (x0, y0, x1, y1) in pixels covers: `(boxes, H / 8, W / 8)`."""
    shares = []
    for axis, side in enumerate(area):
        low = np.arange(0, side, PATCH, dtype=np.float32)[None]
        share = np.minimum(boxes[:, axis + 2, None], low + PATCH) - np.maximum(boxes[:, axis, None], low)
        shares.append(np.maximum(share, 0) * np.float32(1 / PATCH))
    coverage: Floats = shares[1][:, :, None] * shares[0][:, None, :]
    return coverage


# Pixels


def _resize_mask(
    mask: Image.Image, cx: float, cy: float, sx: float, sy: float, area: tuple[int, ...]
) -> tuple[int, int, Floats]:
    """Resize a mask by (sx, sy) so that its centre is exactly at (cx, cy), also between pixels.

    Returns:
        Column and row of its corner, and the mask `(h, w, 1)` from 0 to 1, cut at the picture's border.
    """
    w, h = mask.size
    x0, x1 = max(0, math.ceil(cx - w * sx / 2)), min(area[0], math.floor(cx + w * sx / 2))
    y0, y1 = max(0, math.ceil(cy - h * sy / 2)), min(area[1], math.floor(cy + h * sy / 2))
    if x1 <= x0 or y1 <= y0:
        return 0, 0, np.zeros((0, 0, 1), np.float32)
    box = (
        max(0.0, (x0 - cx) / sx + w / 2),
        max(0.0, (y0 - cy) / sy + h / 2),
        min(float(w), (x1 - cx) / sx + w / 2),
        min(float(h), (y1 - cy) / sy + h / 2),
    )
    small = mask.resize((x1 - x0, y1 - y0), Image.Resampling.BICUBIC, box)
    return x0, y0, np.asarray(small, np.float32)[..., None] * np.float32(1 / 255)
