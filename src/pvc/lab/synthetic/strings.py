"""Samples texts: words in three cases, letters, numbers, codes, prices, times. Each belongs to one split only.

A text can be read in one way only. Called by the task modules that show text.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pvc.lab.synthetic.seeding import Rng, Split, is_text_allowed
from pvc.lab.synthetic.vocabulary import DIGITS, LETTERS, SAFE_LETTERS

_VOWELS, _CONSONANTS = "AEIOUY", "BCDFGHJKLMNPQRSTVWXZ"
# In small letters alone, these could also be capitals: a word needs another letter.
_SAME_IN_BOTH_CASES = "COSUVWXZKIL"
# Weights of styles. "upper", "title" and "lower" are words that can be spoken.
PLAIN = {"upper": 0.3, "letters": 0.25, "number": 0.2, "code": 0.25}
MIXED = {"upper": 0.16, "title": 0.16, "lower": 0.18, "letters": 0.12, "number": 0.14, "code": 0.14, "marked": 0.1}


def sample_for_split(split: Split, sample: Callable[[], str]) -> str:
    """Sample until a text is allowed in a split.

    Args:
        split: the split of the text.
        sample: samples a candidate.
    """
    while True:
        text = sample()
        if is_text_allowed(text, split):
            return text


def sample_text(rng: Rng, split: Split, lengths: Sequence[int], styles: dict[str, float]) -> tuple[str, str]:
    """Sample a text that can be read in one way only.

    Args:
        rng: random generator of the sample.
        split: the split of the text.
        lengths: numbers of characters to choose from.
        styles: weights of the styles, such as PLAIN or MIXED.

    Returns:
        The text and its style.
    """
    while True:
        length, style = rng.choice(lengths), rng.weighted(styles)
        text = _sample_characters(rng, style, length)
        if _is_unambiguous(text, style) and is_text_allowed(text, split):
            return text, style


def sample_texts(
    rng: Rng, split: Split, count: int, lengths: Sequence[int], styles: dict[str, float]
) -> list[tuple[str, str]]:
    """Sample texts that differ even if case is ignored.

    Args:
        rng: random generator of the sample.
        split: the split of the texts.
        count: number of texts.
        lengths: numbers of characters to choose from.
        styles: weights of the styles, such as PLAIN or MIXED.

    Returns:
        Texts with their styles.
    """
    unique: dict[str, tuple[str, str]] = {}
    while len(unique) < count:
        text, style = sample_text(rng, split, lengths, styles)
        unique.setdefault(text.upper(), (text, style))
    return list(unique.values())


def sample_number(rng: Rng, split: Split, low: int, high: int) -> int:
    """Sample a number whose digits a question of the split may ask for.

    Args:
        rng: random generator of the sample.
        split: the split of the number.
        low: smallest number.
        high: largest number.
    """
    return int(sample_for_split(split, lambda: str(rng.integer(low, high))))


def _sample_characters(rng: Rng, style: str, length: int) -> str:
    if style == "number":
        return "".join(rng.choice(DIGITS) for _ in range(length))
    if style == "letters":
        return "".join(rng.choice(LETTERS) for _ in range(length))
    if style == "code":
        return "".join(rng.choice(SAFE_LETTERS + DIGITS) for _ in range(length))
    if style == "marked":
        return _sample_marked(rng, max(3, length))
    start = rng.integer(0, 1)
    word = "".join(rng.choice(_VOWELS if (i + start) % 2 else _CONSONANTS) for i in range(length))
    return {"upper": word, "lower": word.lower(), "title": word.capitalize()}[style]


def _sample_marked(rng: Rng, length: int) -> str:
    """Sample digits with a mark, as in prices, times, shares and dates."""
    digits = "".join(rng.choice(DIGITS) for _ in range(length - 1))
    form = rng.integer(0, 5)
    if form == 0:
        return f"{digits}%"
    if form == 1:
        return f"{rng.choice('$#')}{digits}"
    middle = max(1, len(digits) - 2)
    return f"{digits[:middle]}{rng.choice('.:/-')}{digits[middle:]}"


def _is_unambiguous(text: str, style: str) -> bool:
    # "IO" could be 10, and a code such as B0X could be BOX: a person could not distinguish them.
    if style == "code":
        return any(c in "23456789" for c in text) and any(c in LETTERS for c in text)
    if style in ("lower", "title"):
        # A single letter has no visible case, and a capital I at the beginning looks like a small l.
        small = text.upper() if style == "lower" else text[1:].upper()
        return len(text) > 1 and text[0] not in "Il" and any(c not in _SAME_IN_BOTH_CASES for c in small)
    return style in ("number", "marked") or any(c not in "IO" for c in text)
