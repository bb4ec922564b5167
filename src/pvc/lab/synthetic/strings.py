"""Drawing lots for texts: words in three cases, letters, numbers, codes, prices, times. Each belongs to one split only.

A text can be read in one way only. It leaves out how texts look. Used by the task modules that show text.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pvc.lab.synthetic.seeding import Rng, Split, is_for
from pvc.lab.synthetic.vocabulary import DIGITS, LETTERS, SAFE_LETTERS

_VOWELS, _CONSONANTS = "AEIOUY", "BCDFGHJKLMNPQRSTVWXZ"
# In small letters alone, these could also be capitals: a word needs another letter.
_SAME_IN_BOTH_CASES = "COSUVWXZKIL"
# Share of styles. "upper", "title" and "lower" are words that can be spoken.
PLAIN = {"upper": 0.3, "letters": 0.25, "number": 0.2, "code": 0.25}
MIXED = {"upper": 0.16, "title": 0.16, "lower": 0.18, "letters": 0.12, "number": 0.14, "code": 0.14, "marked": 0.1}


def drawn(split: Split, make: Callable[[], str]) -> str:
    """The first of the texts that `make` draws that the split may ask for."""
    while True:
        text = make()
        if is_for(text, split):
            return text


def text_of(dice: Rng, split: Split, lengths: Sequence[int], styles: dict[str, float]) -> tuple[str, str]:
    """A text of the split that can be read in one way only, of one of the lengths, and its style."""
    while True:
        length, style = dice.choice(lengths), dice.weighted(styles)
        text = _characters(dice, style, length)
        if _is_clear(text, style) and is_for(text, split):
            return text, style


def texts_of(
    dice: Rng, split: Split, count: int, lengths: Sequence[int], styles: dict[str, float]
) -> list[tuple[str, str]]:
    """Different texts of the split, also when cases are not told apart."""
    found: dict[str, tuple[str, str]] = {}
    while len(found) < count:
        text, style = text_of(dice, split, lengths, styles)
        found.setdefault(text.upper(), (text, style))
    return list(found.values())


def number_below(dice: Rng, split: Split, low: int, high: int) -> int:
    """A number from low to high, both included, whose digits the split may ask for."""
    return int(drawn(split, lambda: str(dice.integer(low, high))))


def _characters(dice: Rng, style: str, length: int) -> str:
    if style == "number":
        return "".join(dice.choice(DIGITS) for _ in range(length))
    if style == "letters":
        return "".join(dice.choice(LETTERS) for _ in range(length))
    if style == "code":
        return "".join(dice.choice(SAFE_LETTERS + DIGITS) for _ in range(length))
    if style == "marked":
        return _marked(dice, max(3, length))
    start = dice.integer(0, 1)
    word = "".join(dice.choice(_VOWELS if (i + start) % 2 else _CONSONANTS) for i in range(length))
    return {"upper": word, "lower": word.lower(), "title": word.capitalize()}[style]


def _marked(dice: Rng, length: int) -> str:
    """Digits with a mark as prices, times, shares and dates have one."""
    digits = "".join(dice.choice(DIGITS) for _ in range(length - 1))
    form = dice.integer(0, 5)
    if form == 0:
        return f"{digits}%"
    if form == 1:
        return f"{dice.choice('$#')}{digits}"
    middle = max(1, len(digits) - 2)
    return f"{digits[:middle]}{dice.choice('.:/-')}{digits[middle:]}"


def _is_clear(text: str, style: str) -> bool:
    # "IO" could be 10, and a code such as B0X could be BOX: a person could not tell.
    if style == "code":
        return any(c in "23456789" for c in text) and any(c in LETTERS for c in text)
    if style in ("lower", "title"):
        # One letter alone has no case to be seen, and a capital I at the beginning is a small l.
        small = text.upper() if style == "lower" else text[1:].upper()
        return len(text) > 1 and text[0] not in "Il" and any(c not in _SAME_IN_BOTH_CASES for c in small)
    return style in ("number", "marked") or any(c not in "IO" for c in text)
