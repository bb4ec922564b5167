"""Fonts of the suite: four families from the package index that no training data use.

Called by `canvas.py`. The families come with the `dev` extra.
"""

from __future__ import annotations

import importlib
from functools import cache, lru_cache

from PIL import ImageFont

from pvc.errors import MissingExtraError

# Family: package to install, module, dictionary of file paths, and the faces by weight.
_FAMILIES = {
    "hanken": ("font-hanken-grotesk", "font_hanken_grotesk", "font_files_otf", "HankenGrotesk", "Bold", "Medium"),
    "caladea": ("font-caladea", "font_caladea", "font_files", "Caladea", "Bold", ""),
    "manrope": ("font-manrope", "font_manrope", "font_files", "Manrope", "Bold", "Medium"),
    "serif": ("font-source-serif-pro", "font_source_serif_pro", "font_files_otf", "SourceSerifPro", "Bold", "Semibold"),
}
FAMILIES = tuple(_FAMILIES)
WEIGHTS = ("bold", "medium")
PACKAGES = tuple(entry[0] for entry in _FAMILIES.values())
ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789"


@cache
def font_path(family: str, weight: str = "medium") -> str:
    """Find the file of a face.

    Args:
        family: one of `FAMILIES`.
        weight: one of `WEIGHTS`.

    Raises:
        MissingExtraError: if the package of the family is not installed.
    """
    package, module, attribute, face, bold, medium = _FAMILIES[family]
    try:
        files = getattr(importlib.import_module(module), attribute)
    except ImportError as error:
        raise MissingExtraError(
            f"the font package {package} is not installed, nano_suite needs it: pip install {' '.join(PACKAGES)}"
        ) from error
    return str(files[face + (bold if weight == "bold" else medium)])


@lru_cache(maxsize=4096)
def load_font(family: str, size: int, weight: str = "medium") -> ImageFont.FreeTypeFont:
    """Load a face with basic layout, so that the result does not depend on shaping libraries.

    Args:
        family: one of `FAMILIES`.
        size: pixels per em.
        weight: one of `WEIGHTS`.
    """
    return ImageFont.truetype(font_path(family, weight), size, layout_engine=ImageFont.Layout.BASIC)


def character_width(family: str, size: int, weight: str = "medium") -> float:
    """Compute the mean advance of the lower-case letters and digits of a face, in pixels.

    Args:
        family: one of `FAMILIES`.
        size: pixels per em.
        weight: one of `WEIGHTS`.
    """
    return load_font(family, size, weight).getlength(ALPHABET) / len(ALPHABET)
