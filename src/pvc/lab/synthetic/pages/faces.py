"""Font faces by name, from matplotlib and from packages on PyPI, and the size of lines set in them.

Called by the page tasks. The older tasks use another list (`pvc.lab.synthetic.fonts`), which must not change.
"""

from __future__ import annotations

import functools
import importlib.util
from pathlib import Path

from PIL import ImageFont

from pvc.errors import MissingExtraError

# No thin faces: their strokes vanish at the few pixels that a tile has for a character.
_PACKAGES: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "matplotlib": (
        "mpl-data/fonts/ttf",
        "matplotlib",
        (
            *(f"DejaVuSans{style}.ttf" for style in ("", "-Bold", "-Oblique", "-BoldOblique")),
            *(f"DejaVuSansMono{style}.ttf" for style in ("", "-Bold", "-Oblique", "-BoldOblique")),
            *(f"DejaVuSerif{style}.ttf" for style in ("", "-Bold", "-Italic", "-BoldItalic")),
            *(f"STIXGeneral{style}.ttf" for style in ("", "Bol", "Italic", "BolIta")),
            "cmb10.ttf",
            "cmss10.ttf",
            "cmtt10.ttf",
        ),
    ),
    "font_roboto": (
        "files",
        "font-roboto",
        tuple(
            f"Roboto-{style}.ttf"
            for style in ("Regular", "Medium", "Bold", "Black", "Light", "Italic", "MediumItalic", "BoldItalic")
        ),
    ),
    "font_source_sans_pro": (
        "files",
        "font-source-sans-pro",
        tuple(f"SourceSansPro-{style}.ttf" for style in ("Regular", "Semibold", "Bold", "Black", "It", "BoldIt")),
    ),
    "font_lato": (
        "files",
        "font-lato",
        tuple(f"Lato-{style}.ttf" for style in ("Regular", "Bold", "Black", "Italic", "BoldItalic")),
    ),
}
FACES: dict[str, str] = {
    name.rpartition(".")[0]: module for module, (_, _, names) in _PACKAGES.items() for name in names
}
"""Every face and the module whose files hold it."""
MONOSPACED = tuple(name for name in FACES if "Mono" in name or name == "cmtt10")
PROPORTIONAL = tuple(name for name in FACES if name not in MONOSPACED)


@functools.cache
def _find_path(face: str) -> str:
    """Return the path of a face's file."""
    module = FACES[face]
    folder, package, names = _PACKAGES[module]
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise MissingExtraError(f"page tasks need the fonts of {package}: pip install 'pvc-vlm[fonts]'")
    path = Path(spec.origin).parent / folder / next(name for name in names if name.rpartition(".")[0] == face)
    if not path.is_file():
        raise MissingExtraError(f"{package} is installed without its font {path.name}; reinstall it")
    return str(path)


@functools.lru_cache(maxsize=512)
def load_font(face: str, size: int) -> ImageFont.FreeTypeFont:
    """Load a font.

    Args:
        face: one of FACES.
        size: pixels.

    Raises:
        MissingExtraError: The package of the font is not installed.
    """
    return ImageFont.truetype(_find_path(face), size)


@functools.lru_cache(maxsize=65536)
def get_advance(face: str, text: str) -> float:
    """Return the width of a line in parts of the font size.

    Args:
        face: one of FACES.
        text: the characters.
    """
    return float(load_font(face, 100).getlength(text)) / 100


@functools.cache
def get_cap_height(face: str) -> float:
    """Return the height of a capital in parts of the font size."""
    _, y0, _, y1 = load_font(face, 200).getbbox("H", anchor="ls")
    return (y1 - y0) / 200


__all__ = ["FACES", "MONOSPACED", "PROPORTIONAL", "get_advance", "get_cap_height", "load_font"]
