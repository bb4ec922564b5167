"""Lines of text: strings that can be read in one way only, and their width and height for any font.

Widths are nominal, so that scenes do not depend on font metrics. Called by the task modules that show text.
"""

from __future__ import annotations

from pvc.lab.synthetic import palette
from pvc.lab.synthetic.seeding import Rng, Split, is_text_allowed
from pvc.lab.synthetic.strings import sample_text
from pvc.lab.synthetic.vocabulary import DIGITS, SAFE_LETTERS

# Widths of characters in heights of a capital, over all families: the scene must not depend on a font file's metrics.
WIDTHS = {"I": 0.45, "J": 0.6, "1": 0.7, "M": 1.15, "W": 1.3, "Q": 1.0, "L": 0.8, "E": 0.8, "F": 0.8}
WIDTHS |= dict.fromkeys("abcdeghknopqsuvxyz", 0.72) | dict.fromkeys("frt", 0.55) | dict.fromkeys("ijl", 0.34)
WIDTHS |= {"m": 1.1, "w": 1.0, " ": 0.35, ".": 0.22, ",": 0.22, ":": 0.22, "-": 0.4, "/": 0.45, "%": 1.2}
WIDTH = 0.88
GAP = 0.16
_CODE_PROBABILITY = 0.6  # of a text that is a code
_WORDS = {"upper": 0.3, "title": 0.35, "lower": 0.35}
MIN_ADVANCE = 6.4  # units per character: less is not legible at 64 pixels


def compute_nominal_width(text: str, height: float) -> float:
    """Return the width in units of a line.

    Args:
        text: the characters.
        height: height of a capital in units.
    """
    return height * (sum(WIDTHS.get(c, WIDTH) for c in text) + GAP * (len(text) - 1))


def fit_text(text: str, height: float, room: float = 60.0) -> tuple[float, float]:
    """Return ink width and capital height of a line that fits into a width.

    If it is too wide, it gets lower; at 9 units and below, it is squeezed instead.

    Args:
        text: the characters.
        height: desired height of a capital in units.
        room: maximum width in units.
    """
    width = compute_nominal_width(text, height)
    if width > room:
        height = max(min(height, 9.0), height * room / width)
        width = min(room, compute_nominal_width(text, height))
    # A narrower character is not legible at 64 pixels; a wide I looks like another character.
    floor = MIN_ADVANCE * sum(min(1.0, WIDTHS.get(c, 1.0)) for c in text)
    return round(min(room, max(width, floor)), 3), round(height, 3)


def sample_code_or_word(rng: Rng, split: Split, length: int) -> str:
    """Sample a code or, less often, a word that can be spoken, in one of three cases.

    Args:
        rng: random generator of the sample.
        split: the split of the text.
        length: number of characters.
    """
    if rng.chance(_CODE_PROBABILITY):
        return sample_code(rng, split, length)
    return sample_text(rng, split, (length,), _WORDS)[0]


def sample_code(rng: Rng, split: Split, length: int) -> str:
    """Sample digits, letters or both; letters that look like digits are left out.

    Args:
        rng: random generator of the sample.
        split: the split of the text.
        length: number of characters.
    """
    while True:
        style = rng.weighted({"digits": 0.3, "letters": 0.35, "mixed": 0.35})
        alphabet = {"digits": DIGITS, "letters": SAFE_LETTERS, "mixed": SAFE_LETTERS + DIGITS[2:]}[style]
        text = "".join(rng.choice(alphabet) for _ in range(length))
        # "10" could be letters, which other tasks show.
        if is_text_allowed(text, split) and any(c not in "01" for c in text):
            return text


def sample_text_size(
    rng: Rng, text: str, heights: tuple[float, float], room: float, min_advance: float = MIN_ADVANCE
) -> tuple[float, float]:
    """Sample ink width and capital height of a line.

    If the line is too wide, it gets lower, but not below the lowest height; then it is squeezed.

    Args:
        rng: random generator of the sample.
        text: the characters.
        heights: lowest and highest capital in units.
        room: maximum width in units.
        min_advance: minimum units per character after the picture's change of format.
    """
    height = rng.uniform(*heights)
    width = compute_nominal_width(text, height)
    if width > room:
        height = max(heights[0], height * room / width)
        width = compute_nominal_width(text, height)
    width *= palette.sample_aspect_ratio(rng)
    # A wide I looks like another character, so narrow ones have a lower minimum.
    floor = min_advance * sum(min(1.0, WIDTHS.get(c, 1.0)) for c in text)
    return round(min(room, max(width, floor)), 3), round(height, 3)
