"""Fonts by family name, and lines of characters as large grey masks, made of cached glyphs.

Families: Pillow's embedded font and matplotlib's files, found without importing matplotlib. It leaves out placing and
scaling (`draw`), kerning, and other scripts. Used by `draw`; the task modules ask it which families a split may show.
"""

from __future__ import annotations

import functools
import importlib.util
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from pvc.errors import MissingExtraError, UsageError
from pvc.lab.synthetic.seeding import Split

_EMBEDDED = "aileron"
_FILES = {
    "sans": "DejaVuSans.ttf",
    "sans-bold": "DejaVuSans-Bold.ttf",
    "sans-bold-oblique": "DejaVuSans-BoldOblique.ttf",
    "mono": "DejaVuSansMono.ttf",
    "mono-bold": "DejaVuSansMono-Bold.ttf",
    "serif": "DejaVuSerif.ttf",
    "serif-italic": "DejaVuSerif-Italic.ttf",
    "times": "STIXGeneral.ttf",
    "times-italic": "STIXGeneralItalic.ttf",
    "roman": "cmr10.ttf",
    "roman-bold": "cmb10.ttf",
    "sans-oblique": "DejaVuSans-Oblique.ttf",
    "serif-bold": "DejaVuSerif-Bold.ttf",
    "times-bold": "STIXGeneralBol.ttf",
    "grotesque": "cmss10.ttf",
    "typewriter": "cmtt10.ttf",
}
FAMILIES = (_EMBEDDED, *_FILES)
# Of clearly different cut, and with relatives in training: no split asks for an alphabet that nobody has seen.
HELD_OUT = ("sans-oblique", "serif-bold", "times-bold", "grotesque", "typewriter")
_TRAINED = tuple(family for family in FAMILIES if family not in HELD_OUT)
# Hairlines vanish in small pictures: these faces are drawn with a stroke around them, in parts of the size.
_STROKES = {"roman": 0.02, "grotesque": 0.014, "times": 0.012, "times-italic": 0.016, "typewriter": 0.014}
MASTER_SIZES = (32, 64, 128, 256, 512)
_SPACE = 0.3  # of the size
_PADDING = 12  # master pixels around a line: at least one pixel of the picture, so that resizing sees the whole edge


@dataclass(frozen=True)
class Glyph:
    """Ink of one character: `mask` uint8 (h, w), its offset from the pen (`left`) and the baseline (`top`, upwards)."""

    mask: NDArray[np.uint8]
    left: int
    top: int
    advance: float


@dataclass(frozen=True)
class Line:
    """A line as a padded mask, the size of its ink (capital height without tails), and the ink box of each character.

    Spaces have no box. Boxes are (x0, y0, x1, y1) from the centre of the mask, which is also the centre of the
    (width, cap) ink box.
    """

    mask: Image.Image
    width: int
    cap: int
    boxes: tuple[tuple[float, float, float, float], ...]


def families(split: Split) -> tuple[str, ...]:
    """The families that a split may show: the held-out ones in "fonts", the others everywhere else."""
    return HELD_OUT if split == "fonts" else _TRAINED


@functools.cache
def _dejavu_folder() -> Path:
    spec = importlib.util.find_spec("matplotlib")
    if spec is None or spec.origin is None:
        raise MissingExtraError("the synthetic world takes its fonts from matplotlib: pip install matplotlib")
    return Path(spec.origin).parent / "mpl-data" / "fonts" / "ttf"


@functools.cache
def font(family: str, size: int) -> ImageFont.FreeTypeFont:
    """A font of one of FAMILIES at a size in pixels.

    Raises UsageError for a family nobody knows, MissingExtraError where matplotlib or FreeType is missing.
    """
    if family == _EMBEDDED:
        loaded = ImageFont.load_default(size)
        if not isinstance(loaded, ImageFont.FreeTypeFont):
            raise MissingExtraError("this Pillow was built without FreeType, which the synthetic world needs")
        return loaded
    if family not in _FILES:
        raise UsageError(f"font family {family!r} is not one of {', '.join(FAMILIES)}")
    path = _dejavu_folder() / _FILES[family]
    if not path.is_file():
        raise MissingExtraError(f"matplotlib is installed without its font {path}")
    return ImageFont.truetype(str(path), size)


@functools.cache
def glyph(family: str, size: int, character: str) -> Glyph:
    """The ink of one character at a size in pixels."""
    loaded = font(family, size)
    stroke = size * _STROKES.get(family, 0.0)
    x0, y0, x1, y1 = (round(v) for v in loaded.getbbox(character, anchor="ls", stroke_width=stroke))
    canvas = Image.new("L", (x1 - x0 + 2, y1 - y0 + 2), 0)
    pen = ImageDraw.Draw(canvas)
    pen.text((1 - x0, 1 - y0), character, fill=255, font=loaded, anchor="ls", stroke_width=stroke)
    pixels = np.asarray(canvas)
    rows, columns = np.flatnonzero(pixels.max(1) > 127), np.flatnonzero(pixels.max(0) > 127)
    top, bottom, left, right = int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1
    mask = pixels[top:bottom, left:right].copy()
    return Glyph(mask, left - 1 + x0, 1 - y0 - top, float(loaded.getlength(character)))


@functools.cache
def cap_height(family: str, size: int) -> int:
    """Height of a capital in pixels."""
    return int(glyph(family, size, "H").mask.shape[0])


@functools.cache
def master_size(family: str, target: int) -> int:
    """The smallest master whose capitals have at least 1.6 times `target` pixels, so that resizing smooths."""
    for size in MASTER_SIZES:
        if cap_height(family, size) >= 1.6 * target:
            return size
    return MASTER_SIZES[-1]


@functools.lru_cache(maxsize=64)  # rows of a grid and frames of a clip repeat
def line(text: str, family: str, size: int, spacing: float) -> Line:
    """Set a line of characters at a master size; `spacing` is extra space between them in parts of the size."""
    cap = cap_height(family, size)
    pen, placed = 0.0, []
    for character in text:
        if character == " ":
            pen += (_SPACE + spacing) * size
            continue
        ink = glyph(family, size, character)
        placed.append((round(pen) + ink.left, ink))
        pen += ink.advance + spacing * size
    first = min(x for x, _ in placed)
    width = max(x + ink.mask.shape[1] for x, ink in placed) - first
    # The tail of Q and J hangs below the baseline; the same room is left above so that the centre stays the centre.
    tail = max(0, *(ink.mask.shape[0] - ink.top for _, ink in placed), *(ink.top - cap for _, ink in placed))
    edge = _PADDING + tail
    canvas = np.zeros((cap + 2 * edge, width + 2 * _PADDING), np.uint8)
    boxes = []
    for x, ink in placed:
        h, w = ink.mask.shape
        left, top = x - first, cap - ink.top
        region = canvas[edge + top : edge + top + h, _PADDING + left : _PADDING + left + w]
        np.maximum(region, ink.mask, out=region)
        boxes.append((left - width / 2, top - cap / 2, left + w - width / 2, top + h - cap / 2))
    return Line(Image.fromarray(canvas), width, cap, tuple(boxes))
