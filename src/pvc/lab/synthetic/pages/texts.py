"""Drawing texts for pages: words, names, numbers, prices, times, dates and short phrases.

Each text belongs to one split only (`pvc.lab.synthetic.seeding`). Used by the page tasks.
"""

from __future__ import annotations

import functools
import itertools
from importlib import resources

from pvc.errors import MissingExtraError
from pvc.lab.synthetic.seeding import Rng, Split
from pvc.lab.synthetic.strings import drawn
from pvc.lab.synthetic.vocabulary import DIGITS, SAFE_LETTERS


def _read_lists() -> dict[str, tuple[str, ...]]:
    """Read `words.txt`: a line per list, its name, a colon, and its entries with commas between."""
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
def common_words() -> tuple[str, ...]:
    """Return 2,048 common English words of 3 to 8 letters, in small letters (BIP 39).

    Raises:
        MissingExtraError: the package that has them is not installed.
    """
    try:
        from mnemonic import Mnemonic
    except ImportError as error:
        raise MissingExtraError("page tasks need the word list of mnemonic: pip install 'pvc-vlm[fonts]'") from error
    return tuple(Mnemonic("english").wordlist)


def _plain_word(dice: Rng) -> str:
    source = dice.weighted(
        {"common": 0.4, "signs": 0.14, "screens": 0.14, "goods": 0.08, "spoken": 0.14, "doubled": 0.1}
    )
    if source == "common":
        return dice.choice(common_words())
    if source == "spoken":
        return "".join(dice.choice(_VOWELS if i % 2 else _CONSONANTS) for i in range(dice.integer(3, 8)))
    if source == "doubled":
        return dice.choice(_doubled())
    return dice.choice({"signs": _SIGNS, "screens": _SCREENS, "goods": _GOODS}[source])


@functools.cache
def _doubled() -> tuple[str, ...]:
    """Return the words with two equal letters in a row, which are easily read as one."""
    words = (*common_words(), *_SIGNS, *_SCREENS, *_GOODS)
    return tuple(w for w in words if any(a == b for a, b in itertools.pairwise(w)))


def cased(dice: Rng, word: str) -> str:
    """Return a word in capitals, with one capital, or in small letters."""
    return dice.weighted({word.upper(): 0.38, word.capitalize(): 0.34, word.lower(): 0.28})


def word(dice: Rng, split: Split, longest: int = 9) -> str:
    """Draw a word or a name of at most so many letters."""

    def make() -> str:
        while True:
            text = dice.choice(_NAMES) if dice.chance(0.15) else cased(dice, _plain_word(dice))
            if len(text) <= longest:
                return text

    return drawn(split, make)


def goods(dice: Rng, count: int) -> list[str]:
    """Draw different things that are sold, in one case."""
    case = dice.choice((str.capitalize, str.capitalize, str.upper, str.lower))
    return [case(name) for name in dice.sample(_GOODS, count)]


def names(dice: Rng, count: int) -> list[str]:
    """Draw different names."""
    return dice.sample(_NAMES, count)


def screen_words(dice: Rng, count: int) -> list[str]:
    """Draw different words of programs, in one case."""
    case = dice.choice((str.capitalize, str.capitalize, str.upper, str.lower))
    return [case(name) for name in dice.sample(sorted(set(_SCREENS)), count)]


def phrase(dice: Rng, split: Split, longest: int = 14) -> str:
    """Draw two or three words in one case."""

    def make() -> str:
        while True:
            if dice.chance(0.35):
                text = dice.choice(_PHRASES)
                text = dice.weighted({text: 0.5, text.upper(): 0.3, text.lower(): 0.2})
            else:
                words = [_plain_word(dice) for _ in range(2 if dice.chance(0.75) else 3)]
                case = dice.choice((str.upper, str.lower, str.title, str.capitalize))
                text = case(" ".join(words))
            if len(text) <= longest:
                return text

    return drawn(split, make)


def number(dice: Rng, split: Split, style: str | None = None) -> str:
    """Draw a number as people write them: a year, an integer, a price, a time, a percentage, a date or a code."""
    chosen = style or dice.weighted(NUMERIC)
    return drawn(split, lambda: _number(dice, chosen))


def price(dice: Rng, sign: str | None = None) -> str:
    """Draw a price."""
    cents = dice.choice(("00", "50", "99", "25", "75", "20", "80", "95", f"{dice.integer(0, 99):02d}"))
    body = f"{dice.integer(1, 9) if dice.chance(0.55) else dice.integer(10, 99)}.{cents}"
    return (dice.choice(("$", "", "")) if sign is None else sign) + body


def _number(dice: Rng, style: str) -> str:
    if style == "year":
        return str(dice.integer(1900, 2049))
    if style == "integer":
        length = dice.weighted({1: 0.1, 2: 0.25, 3: 0.25, 4: 0.25, 5: 0.1, 6: 0.05})
        text = "".join(dice.choice(DIGITS) for _ in range(length))
        if dice.chance(0.25):  # equal neighbours are easily read as one
            text = (
                text[: length // 2] + text[length // 2 - 1 : length // 2] + text[length // 2 + 1 :]
                if length > 1
                else text
            )
        return text
    if style == "price":
        return price(dice)
    if style == "time":
        clock = f"{dice.integer(0, 23)}:{dice.integer(0, 59):02d}" if dice.chance(0.6) else f"{dice.integer(1, 12)}:00"
        return clock + (dice.choice((" am", " pm", " AM", " PM")) if dice.chance(0.2) else "")
    if style == "percent":
        return f"{dice.integer(1, 100)}%"
    if style == "decimal":
        return f"{dice.integer(0, 99)}.{dice.integer(0, 9)}"
    if style == "date":
        day, month = dice.integer(1, 28), dice.integer(1, 12)
        return dice.choice((f"{day}.{month}.", f"{day}/{month}", f"{day} {MONTHS[month - 1][:3]}"))
    return _code(dice)


def _code(dice: Rng) -> str:
    form = dice.integer(0, 4)
    digits = "".join(dice.choice(DIGITS[2:]) for _ in range(dice.integer(1, 3)))
    if form == 0:
        return f"{dice.choice(SAFE_LETTERS)}{digits}"
    if form == 1:
        return f"{dice.choice(SAFE_LETTERS)}{dice.choice(SAFE_LETTERS)}-{digits}"
    if form == 2:
        return f"No. {digits}"
    if form == 3:
        return f"{dice.integer(200, 999)}-{dice.integer(1000, 9999)}"
    return "".join(dice.choice(SAFE_LETTERS + DIGITS[2:]) for _ in range(dice.integer(3, 6)))


def line(dice: Rng, split: Split, longest: int = 14) -> str:
    """Draw one line of a page: a word, a phrase or a number."""
    kind = dice.weighted({"word": 0.45, "phrase": 0.27, "number": 0.28})
    if kind == "word":
        return word(dice, split, min(9, longest))
    if kind == "phrase":
        return phrase(dice, split, longest)
    while True:
        text = number(dice, split)
        if len(text) <= longest:
            return text


def lines(dice: Rng, split: Split, count: int, longest: int = 14) -> list[str]:
    """Draw lines that differ in any case."""
    found: dict[str, str] = {}
    while len(found) < count:
        text = line(dice, split, longest)
        found.setdefault(text.upper(), text)
    return list(found.values())


__all__ = [
    "DAYS",
    "MONTHS",
    "cased",
    "common_words",
    "drawn",
    "goods",
    "line",
    "lines",
    "names",
    "number",
    "phrase",
    "price",
    "screen_words",
    "word",
]
