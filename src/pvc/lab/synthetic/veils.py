"""Renders what hides parts of a clip in some frames (boards, speckle, smears), and merges equal frames.

The task modules decide when and why something is hidden. Called by `draw` and `make`.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pvc.lab.synthetic.scene import PATCH, UNITS, Scene, Veil

Floats = NDArray[np.float32]
_MIN_MERGED_FRAMES = 24  # frames: in shorter clips, the noise of every frame differs
_NOISE_PERIOD = 4  # frames after which the noise of a longer clip may repeat


def render_veil(canvas: Floats, labels: NDArray[np.int64], veil: Veil, size: int) -> None:
    """Hide a box in the frames that `veil.shown` selects; hidden patches lose their labels.

    Args:
        canvas: float32 `(F, H, W, 3)`, changed in place.
        labels: int64 `(F, H / 8, W / 8)`, changed in place.
        veil: what to render.
        size: pixels of 64 units.
    """
    scale = size / UNITS
    x0, x1 = (min(max(round((veil.x + side * veil.w / 2) * scale), 0), size) for side in (-1, 1))
    y0, y1 = (min(max(round((veil.y + side * veil.h / 2) * scale), 0), size) for side in (-1, 1))
    if x1 <= x0 or y1 <= y0:
        return
    # A patch loses its label if a fifth of it is hidden; text gets one from a quarter on (draw.COVERAGE).
    rows, columns = (
        slice(math.ceil(a / PATCH - 0.8), math.floor(b / PATCH - 0.2) + 1) for a, b in ((y0, y1), (x0, x1))
    )
    for f, is_visible in enumerate(veil.shown):
        if not is_visible:
            continue
        region = canvas[f, y0:y1, x0:x1]
        if veil.kind == "board":
            region[:] = veil.rgb
        elif veil.kind == "speckle":
            region[:] = _render_speckle(veil, f, (y1 - y0, x1 - x0), scale)
        else:
            region[:] = _smear(region, max(1.0, veil.grain * scale))
        labels[f, rows, columns] = 0


def _render_speckle(veil: Veil, frame: int, shape: tuple[int, int], scale: float) -> Floats:
    """Return noise in grains of the scene's size, so that it looks the same at every picture size."""
    grain = max(1, round(veil.grain * scale))
    generator = np.random.Generator(np.random.PCG64([veil.seed, frame]))
    h, w = -(-shape[0] // grain), -(-shape[1] // grain)
    parts = generator.random((h, w, 1), np.float32).repeat(grain, 0).repeat(grain, 1)[: shape[0], : shape[1]]
    first, second = np.array(veil.rgb, np.float32), np.array(veil.rgb2, np.float32)
    noise: Floats = first + parts * (second - first)
    return noise


def _smear(region: Floats, grain: float) -> Floats:
    h, w, _ = region.shape
    small = (max(1, round(w / grain)), max(1, round(h / grain)))
    picture = Image.fromarray(np.clip(region, 0, 255).astype(np.uint8))
    smeared = picture.resize(small, Image.Resampling.BOX).resize((w, h), Image.Resampling.BILINEAR)
    return np.asarray(smeared, np.float32)


def merge_equal_frames(scene: Scene) -> tuple[Scene, list[int]]:
    """Return a scene with only the different frames of a long clip, and for every frame its index among them."""
    if scene.frames < _MIN_MERGED_FRAMES:
        return scene, list(range(scene.frames))
    tracks: list[tuple[object, ...]] = [figure.track for figure in scene.figures]
    tracks += [text.track for text in scene.texts] + [veil.shown for veil in scene.veils]
    period = _NOISE_PERIOD if scene.look.noise > 0 else 1
    indices: dict[tuple[object, ...], int] = {}
    order: list[int] = []
    frames: list[int] = []
    for f, state in enumerate(zip(*tracks, strict=True)) if tracks else enumerate([()] * scene.frames):
        key = (f % period, *state)
        if key not in indices:
            indices[key] = len(frames)
            frames.append(f)
        order.append(indices[key])
    if len(frames) == scene.frames:
        return scene, order
    shorter = dataclasses.replace(
        scene,
        figures=tuple(dataclasses.replace(i, track=tuple(i.track[f] for f in frames)) for i in scene.figures),
        texts=tuple(dataclasses.replace(i, track=tuple(i.track[f] for f in frames)) for i in scene.texts),
        veils=tuple(dataclasses.replace(v, shown=tuple(v.shown[f] for f in frames)) for v in scene.veils),
        frames=len(frames),
    )
    return shorter, order
