"""Samples texts for pages: words, names, numbers, prices, times, dates and short phrases.

Each text belongs to one split only (`pvc.lab.synthetic.seeding`). Called by the page tasks.
"""

from __future__ import annotations

import functools
import itertools
from importlib import resources

from pvc.errors import MissingExtraError
from pvc.lab.synthetic.seeding import Rng, Split
from pvc.lab.synthetic.strings import sample_for_split
from pvc.lab.synthetic.vocabulary import DIGITS, SAFE_LETTERS


def _read_lists() -> dict[str, tuple[str, ...]]:
    """Read `words.txt`: a list per line, with its name, a colon, and its entries separated by commas."""
    content = resources.files("pvc.lab.synthetic.pages").joinpath("words.txt").read_text(encoding="utf-8")
    pairs = (entry.split(":", 1) for entry in content.splitlines() if entry)
    return {name: tuple(word.strip() for word in entries.split(",")) for name, entries in pairs}


_LISTS = _read_lists()
_SIGNS = _LISTS["signs"]
_SCREENS = _LISTS["screens"]
_GOODS = _LISTS["goods"]
_NAMES = _LISTS["names"]
_PHRASES = _LISTS["phrases"]
MONTHS = _LISTS["months"]
DAYS = _LISTS["days"]
_CONSONANTS, _VOWELS = "bcdfghklmnprstvw", "aeiou"
NUMERIC = {
    "year": 1.0,
    "integer": 1.6,
    "price": 1.5,
    "time": 1.0,
    "percent": 0.7,
    "decimal": 0.7,
    "date": 0.5,
    "code": 1.0,
}


@functools.cache
def load_common_words() -> tuple[str, ...]:
    """Return 2,048 common English words of 3 to 8 letters, in small letters (BIP 39).

    Raises:
        MissingExtraError: The package that has them is not installed.
    """
    try:
        from mnemonic import Mnemonic
    except ImportError as error:
        raise MissingExtraError("page tasks need the word list of mnemonic: pip install 'pvc-vlm[fonts]'") from error
    return tuple(Mnemonic("english").wordlist)


def _sample_plain_word(rng: Rng) -> str:
    source = rng.weighted(
        {"common": 0.4, "signs": 0.14, "screens": 0.14, "goods": 0.08, "spoken": 0.14, "doubled": 0.1}
    )
    if source == "common":
        return rng.choice(load_common_words())
    if source == "spoken":
        return "".join(rng.choice(_VOWELS if i % 2 else _CONSONANTS) for i in range(rng.integer(3, 8)))
    if source == "doubled":
        return rng.choice(_get_doubled_words())
    return rng.choice({"signs": _SIGNS, "screens": _SCREENS, "goods": _GOODS}[source])


@functools.cache
def _get_doubled_words() -> tuple[str, ...]:
    """Return the words with two equal letters in a row, which are easily read as one."""
    words = (*load_common_words(), *_SIGNS, *_SCREENS, *_GOODS)
    return tuple(w for w in words if any(a == b for a, b in itertools.pairwise(w)))


def _sample_case(rng: Rng, word: str) -> str:
    """Return a word in capitals, with one capital, or in small letters."""
    return rng.weighted({word.upper(): 0.38, word.capitalize(): 0.34, word.lower(): 0.28})


def sample_word(rng: Rng, split: Split, max_length: int = 9) -> str:
    """Sample a word or a name.

    Args:
        rng: random generator of the sample.
        split: the split of the word.
        max_length: maximum number of letters.
    """

    def sample() -> str:
        while True:
            text = rng.choice(_NAMES) if rng.chance(0.15) else _sample_case(rng, _sample_plain_word(rng))
            if len(text) <= max_length:
                return text

    return sample_for_split(split, sample)


def sample_goods(rng: Rng, count: int) -> list[str]:
    """Sample different things that are sold, in one case.

    Args:
        rng: random generator of the sample.
        count: number of things.
    """
    case = rng.choice((str.capitalize, str.capitalize, str.upper, str.lower))
    return [case(name) for name in rng.sample(_GOODS, count)]


def sample_names(rng: Rng, count: int) -> list[str]:
    """Sample different names.

    Args:
        rng: random generator of the sample.
        count: number of names.
    """
    return rng.sample(_NAMES, count)


def sample_screen_words(rng: Rng, count: int) -> list[str]:
    """Sample different words of programs, in one case.

    Args:
        rng: random generator of the sample.
        count: number of words.
    """
    case = rng.choice((str.capitalize, str.capitalize, str.upper, str.lower))
    return [case(name) for name in rng.sample(sorted(set(_SCREENS)), count)]


def sample_phrase(rng: Rng, split: Split, max_length: int = 14) -> str:
    """Sample two or three words in one case.

    Args:
        rng: random generator of the sample.
        split: the split of the phrase.
        max_length: maximum number of characters.
    """

    def sample() -> str:
        while True:
            if rng.chance(0.35):
                text = rng.choice(_PHRASES)
                text = rng.weighted({text: 0.5, text.upper(): 0.3, text.lower(): 0.2})
            else:
                words = [_sample_plain_word(rng) for _ in range(2 if rng.chance(0.75) else 3)]
                case = rng.choice((str.upper, str.lower, str.title, str.capitalize))
                text = case(" ".join(words))
            if len(text) <= max_length:
                return text

    return sample_for_split(split, sample)


def sample_number(rng: Rng, split: Split, style: str | None = None) -> str:
    """Sample a number as people write it: a year, an integer, a price, a time, a percentage, a date or a code.

    Args:
        rng: random generator of the sample.
        split: the split of the number.
        style: one of NUMERIC; sampled if None.
    """
    number_style = style or rng.weighted(NUMERIC)
    return sample_for_split(split, lambda: _sample_number(rng, number_style))


def sample_price(rng: Rng, sign: str | None = None) -> str:
    """Sample a price.

    Args:
        rng: random generator of the sample.
        sign: currency sign before it; sampled if None.
    """
    cents = rng.choice(("00", "50", "99", "25", "75", "20", "80", "95", f"{rng.integer(0, 99):02d}"))
    body = f"{rng.integer(1, 9) if rng.chance(0.55) else rng.integer(10, 99)}.{cents}"
    return (rng.choice(("$", "", "")) if sign is None else sign) + body


def _sample_number(rng: Rng, style: str) -> str:
    if style == "year":
        return str(rng.integer(1900, 2049))
    if style == "integer":
        length = rng.weighted({1: 0.1, 2: 0.25, 3: 0.25, 4: 0.25, 5: 0.1, 6: 0.05})
        text = "".join(rng.choice(DIGITS) for _ in range(length))
        if rng.chance(0.25):  # equal neighbours are easily read as one
            text = (
                text[: length // 2] + text[length // 2 - 1 : length // 2] + text[length // 2 + 1 :]
                if length > 1
                else text
            )
        return text
    if style == "price":
        return sample_price(rng)
    if style == "time":
        clock = f"{rng.integer(0, 23)}:{rng.integer(0, 59):02d}" if rng.chance(0.6) else f"{rng.integer(1, 12)}:00"
        return clock + (rng.choice((" am", " pm", " AM", " PM")) if rng.chance(0.2) else "")
    if style == "percent":
        return f"{rng.integer(1, 100)}%"
    if style == "decimal":
        return f"{rng.integer(0, 99)}.{rng.integer(0, 9)}"
    if style == "date":
        day, month = rng.integer(1, 28), rng.integer(1, 12)
        return rng.choice((f"{day}.{month}.", f"{day}/{month}", f"{day} {MONTHS[month - 1][:3]}"))
    return _sample_code(rng)


def _sample_code(rng: Rng) -> str:
    form = rng.integer(0, 4)
    digits = "".join(rng.choice(DIGITS[2:]) for _ in range(rng.integer(1, 3)))
    if form == 0:
        return f"{rng.choice(SAFE_LETTERS)}{digits}"
    if form == 1:
        return f"{rng.choice(SAFE_LETTERS)}{rng.choice(SAFE_LETTERS)}-{digits}"
    if form == 2:
        return f"No. {digits}"
    if form == 3:
        return f"{rng.integer(200, 999)}-{rng.integer(1000, 9999)}"
    return "".join(rng.choice(SAFE_LETTERS + DIGITS[2:]) for _ in range(rng.integer(3, 6)))


def sample_line(rng: Rng, split: Split, max_length: int = 14) -> str:
    """Sample one line of a page: a word, a phrase or a number.

    Args:
        rng: random generator of the sample.
        split: the split of the line.
        max_length: maximum number of characters.
    """
    kind = rng.weighted({"word": 0.45, "phrase": 0.27, "number": 0.28})
    if kind == "word":
        return sample_word(rng, split, min(9, max_length))
    if kind == "phrase":
        return sample_phrase(rng, split, max_length)
    while True:
        text = sample_number(rng, split)
        if len(text) <= max_length:
            return text


def sample_lines(rng: Rng, split: Split, count: int, max_length: int = 14) -> list[str]:
    """Sample lines that differ even if case is ignored.

    Args:
        rng: random generator of the sample.
        split: the split of the lines.
        count: number of lines.
        max_length: maximum number of characters of a line.
    """
    unique: dict[str, str] = {}
    while len(unique) < count:
        text = sample_line(rng, split, max_length)
        unique.setdefault(text.upper(), text)
    return list(unique.values())


__all__ = [
    "DAYS",
    "MONTHS",
    "load_common_words",
    "sample_for_split",
    "sample_goods",
    "sample_line",
    "sample_lines",
    "sample_names",
    "sample_number",
    "sample_phrase",
    "sample_price",
    "sample_screen_words",
    "sample_word",
]
