"""Fonts by family name, and lines of characters as large grey masks, made of cached glyphs.

Families: Pillow's embedded font and matplotlib's files, found without importing matplotlib. There is no kerning.
Called by `draw`; the task modules read the families of a split.
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
# Clearly different designs with relatives in training, so that no split needs an unknown alphabet.
HELD_OUT = ("sans-oblique", "serif-bold", "times-bold", "grotesque", "typewriter")
_TRAINED = tuple(family for family in FAMILIES if family not in HELD_OUT)
# Hairlines vanish in small pictures, so these faces are rendered with a stroke, in parts of the size.
_STROKES = {"roman": 0.02, "grotesque": 0.014, "times": 0.012, "times-italic": 0.016, "typewriter": 0.014}
MASTER_SIZES = (32, 64, 128, 256, 512)
_SPACE = 0.3  # of the size
_PADDING = 12  # master pixels around a line: at least one pixel of the picture, so that resizing sees the whole edge


@dataclass(frozen=True)
class _Glyph:
    """The ink of one character.

    Attributes:
        mask: uint8 `(h, w)`.
        left: offset of the ink from the pen in pixels.
        top: height of the ink's top above the baseline in pixels.
        advance: width of the character in pixels.
    """

    mask: NDArray[np.uint8]
    left: int
    top: int
    advance: float


@dataclass(frozen=True)
class Line:
    """A line of text as a padded mask.

    Attributes:
        mask: grey image.
        width: width of the ink in pixels.
        cap: height of a capital in pixels, which is the height of the ink without tails.
        boxes: ink box (x0, y0, x1, y1) of each character except spaces, from the centre of the mask. That is also the
            centre of the (width, cap) box.
    """

    mask: Image.Image
    width: int
    cap: int
    boxes: tuple[tuple[float, float, float, float], ...]


def get_families(split: Split) -> tuple[str, ...]:
    """Return the families that a split may use: the held-out ones in "fonts", the others in all other splits."""
    return HELD_OUT if split == "fonts" else _TRAINED


@functools.cache
def _find_font_folder() -> Path:
    """Return the folder of matplotlib's fonts."""
    spec = importlib.util.find_spec("matplotlib")
    if spec is None or spec.origin is None:
        raise MissingExtraError("synthetic tasks need the fonts of matplotlib: pip install matplotlib")
    return Path(spec.origin).parent / "mpl-data" / "fonts" / "ttf"


@functools.cache
def load_font(family: str, size: int) -> ImageFont.FreeTypeFont:
    """Load a font.

    Args:
        family: one of FAMILIES.
        size: pixels.

    Raises:
        UsageError: The family does not exist.
        MissingExtraError: matplotlib or FreeType is missing.
    """
    if family == _EMBEDDED:
        face = ImageFont.load_default(size)
        if not isinstance(face, ImageFont.FreeTypeFont):
            raise MissingExtraError(
                "synthetic tasks need FreeType, but Pillow was built without it; install a build with it"
            )
        return face
    if family not in _FILES:
        raise UsageError(f"font family {family!r} is not one of {', '.join(FAMILIES)}")
    path = _find_font_folder() / _FILES[family]
    if not path.is_file():
        raise MissingExtraError(f"matplotlib is installed without its font {path}; reinstall it")
    return ImageFont.truetype(str(path), size)


@functools.cache
def _render_glyph(family: str, size: int, character: str) -> _Glyph:
    """Return the ink of one character at a size in pixels."""
    face = load_font(family, size)
    stroke = size * _STROKES.get(family, 0.0)
    x0, y0, x1, y1 = (round(v) for v in face.getbbox(character, anchor="ls", stroke_width=stroke))
    canvas = Image.new("L", (x1 - x0 + 2, y1 - y0 + 2), 0)
    pen = ImageDraw.Draw(canvas)
    pen.text((1 - x0, 1 - y0), character, fill=255, font=face, anchor="ls", stroke_width=stroke)
    pixels = np.asarray(canvas)
    rows, columns = np.flatnonzero(pixels.max(1) > 127), np.flatnonzero(pixels.max(0) > 127)
    top, bottom, left, right = int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1
    mask = pixels[top:bottom, left:right].copy()
    return _Glyph(mask, left - 1 + x0, 1 - y0 - top, float(face.getlength(character)))


@functools.cache
def _get_cap_height(family: str, size: int) -> int:
    """Return the height of a capital in pixels."""
    return int(_render_glyph(family, size, "H").mask.shape[0])


@functools.cache
def get_master_size(family: str, target: int) -> int:
    """Return the smallest master whose capitals have 1.6 times the target's pixels, so that resizing smooths.

    Args:
        family: one of FAMILIES.
        target: height of a capital in the picture, in pixels.
    """
    for size in MASTER_SIZES:
        if _get_cap_height(family, size) >= 1.6 * target:
            return size
    return MASTER_SIZES[-1]


@functools.lru_cache(maxsize=64)  # rows of a grid and frames of a clip repeat
def render_line(text: str, family: str, size: int, spacing: float) -> Line:
    """Set a line of characters at a master size.

    Args:
        text: the characters.
        family: one of FAMILIES.
        size: one of MASTER_SIZES.
        spacing: extra space between characters, in parts of the size.
    """
    cap = _get_cap_height(family, size)
    pen, glyphs = 0.0, []
    for character in text:
        if character == " ":
            pen += (_SPACE + spacing) * size
            continue
        ink = _render_glyph(family, size, character)
        glyphs.append((round(pen) + ink.left, ink))
        pen += ink.advance + spacing * size
    first = min(x for x, _ in glyphs)
    width = max(x + ink.mask.shape[1] for x, ink in glyphs) - first
    # The tail of Q and J hangs below the baseline; the same space above keeps the centre in place.
    tail = max(0, *(ink.mask.shape[0] - ink.top for _, ink in glyphs), *(ink.top - cap for _, ink in glyphs))
    edge = _PADDING + tail
    canvas = np.zeros((cap + 2 * edge, width + 2 * _PADDING), np.uint8)
    boxes = []
    for x, ink in glyphs:
        h, w = ink.mask.shape
        left, top = x - first, cap - ink.top
        region = canvas[edge + top : edge + top + h, _PADDING + left : _PADDING + left + w]
        np.maximum(region, ink.mask, out=region)
        boxes.append((left - width / 2, top - cap / 2, left + w - width / 2, top + h - cap / 2))
    return Line(Image.fromarray(canvas), width, cap, tuple(boxes))
