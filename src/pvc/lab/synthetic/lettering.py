"""Lines of text: strings that can be read in one way, and how wide and high they are drawn, whatever their font.

Widths are nominal, so that scenes hold no font metrics.
It leaves out fonts and drawing. Used by the task modules that show text.
"""

from __future__ import annotations

from pvc.lab.synthetic import palette
from pvc.lab.synthetic.seeding import Rng, Split, is_for
from pvc.lab.synthetic.strings import text_of
from pvc.lab.synthetic.vocabulary import DIGITS, SAFE_LETTERS

# Widths of characters in heights of a capital, over all families: the scene must not depend on a font file's metrics.
WIDTHS = {"I": 0.45, "J": 0.6, "1": 0.7, "M": 1.15, "W": 1.3, "Q": 1.0, "L": 0.8, "E": 0.8, "F": 0.8}
WIDTHS |= dict.fromkeys("abcdeghknopqsuvxyz", 0.72) | dict.fromkeys("frt", 0.55) | dict.fromkeys("ijl", 0.34)
WIDTHS |= {"m": 1.1, "w": 1.0, " ": 0.35, ".": 0.22, ",": 0.22, ":": 0.22, "-": 0.4, "/": 0.45, "%": 1.2}
WIDTH = 0.88
GAP = 0.16
_CODES = 0.6  # part of the texts
_WORDS = {"upper": 0.3, "title": 0.35, "lower": 0.35}
LEAST_ADVANCE = 6.4  # units per character: less is not legible at 64 pixels


def nominal_width(text: str, height: float) -> float:
    """Width in units of a line whose capitals are `height` units high."""
    return height * (sum(WIDTHS.get(c, WIDTH) for c in text) + GAP * (len(text) - 1))


def fitted(text: str, height: float, room: float = 60.0) -> tuple[float, float]:
    """Ink width and capital height of a line: lower where it would not fit into `room`, and squeezed below 9 units."""
    width = nominal_width(text, height)
    if width > room:
        height = max(min(height, 9.0), height * room / width)
        width = min(room, nominal_width(text, height))
    # A character of less than this is not legible at 64 pixels; a wide I is no longer one.
    floor = LEAST_ADVANCE * sum(min(1.0, WIDTHS.get(c, 1.0)) for c in text)
    return round(min(room, max(width, floor)), 3), round(height, 3)


def draw_text(dice: Rng, split: Split, length: int) -> str:
    """A code or, less often, a word that can be spoken, in one of three cases, of this split."""
    if dice.chance(_CODES):
        return draw_code(dice, split, length)
    return text_of(dice, split, (length,), _WORDS)[0]


def draw_code(dice: Rng, split: Split, length: int) -> str:
    """Digits, letters or both, of this split; letters that look like digits are left out."""
    while True:
        style = dice.weighted({"digits": 0.3, "letters": 0.35, "mixed": 0.35})
        alphabet = {"digits": DIGITS, "letters": SAFE_LETTERS, "mixed": SAFE_LETTERS + DIGITS[2:]}[style]
        text = "".join(dice.choice(alphabet) for _ in range(length))
        # "10" could be letters, which other tasks show.
        if is_for(text, split) and any(c not in "01" for c in text):
            return text


def extents_of(
    dice: Rng, text: str, heights: tuple[float, float], room: float, least: float = LEAST_ADVANCE
) -> tuple[float, float]:
    """Ink width and capital height: as high as drawn, or lower (not below the lowest), or squeezed, to fit the room.

    least: units per character that the width does not fall below by a picture's change of format.
    """
    height = dice.uniform(*heights)
    width = nominal_width(text, height)
    if width > room:
        height = max(heights[0], height * room / width)
        width = nominal_width(text, height)
    width *= palette.squash(dice)
    # A wide I is no longer one, so the floor is for the characters that need it.
    floor = least * sum(min(1.0, WIDTHS.get(c, 1.0)) for c in text)
    return round(min(room, max(width, floor)), 3), round(height, 3)
