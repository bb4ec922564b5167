"""Nominal widths of text: how wide and high a line is drawn, whatever its font, so that scenes hold no font metrics.

It leaves out fonts and drawing. Used by the task modules that show text.
"""

from __future__ import annotations

# Widths of characters in heights of a capital, over all families: the scene must not depend on a font file's metrics.
WIDTHS = {"I": 0.45, "J": 0.6, "1": 0.7, "M": 1.15, "W": 1.3, "Q": 1.0, "L": 0.8, "E": 0.8, "F": 0.8}
WIDTH = 0.88
GAP = 0.16
LEAST_ADVANCE = 6.4  # units per character: less is not legible at 64 pixels


def nominal_width(text: str, height: float) -> float:
    """Width in units of a line whose capitals are `height` units high."""
    return height * (sum(WIDTHS.get(c, WIDTH) for c in text) + GAP * (len(text) - 1))
