"""The rules that decide whether an answer counts. Strings only; called by `run.py` and the tests.

`exact` compares strings. `lenient` accepts other wordings, and rejects answers that name a second candidate. The
rules are listed in the README of this folder.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence


def _names(words: str, name: str | None = None) -> dict[str, str]:
    """Map every word to `name`, or to itself."""
    return {word: name or word for word in words.split()}


_NUMBERS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen twenty"
)
_DIGITS = {word: str(value) for value, word in enumerate(_names(_NUMBERS))} | {"once": "1", "twice": "2"}
_ARTICLES = {"a", "an", "the"}
_SPELLINGS = {"grey": "gray", "colour": "color", "centre": "center", "middle": "center", "colours": "colors"}
_NEGATIONS = {"not", "no", "never", "neither", "nor", "isn't", "aren't", "doesn't", "don't"}
EXTRA_WORDS = 12

COLOUR = _names("red green blue yellow orange purple black white gray pink brown cyan magenta gold silver beige")
COLOUR |= {"violet": "purple"}
SHAPE = _names("circle square triangle star cross rectangle diamond hexagon pentagon oval ellipse heart arrow ring")
SHAPE |= _names("disc disk dot", "circle") | {"plus": "cross"}
SHAPE |= {word + "s": name for word, name in SHAPE.items()} | {"crosses": "cross"}
PLACE = _names("top bottom left right center") | {"upper": "top", "lower": "bottom"}
RELATION = _names("left right above below") | {"over": "above"} | _names("under beneath underneath", "below")
DIRECTION = _names("left leftward leftwards", "left") | _names("right rightward rightwards", "right")
DIRECTION |= _names("up upward upwards", "up") | _names("down downward downwards", "down")
GROWTH = _names("grow grows growing grew bigger larger", "grow")
GROWTH |= _names("shrink shrinks shrinking shrank smaller", "shrink")
YES_NO = _names("yes no")

_WORD = re.compile(r"\d+(?:[.:/-]\d+)*|[^\W\d_]+(?:'[^\W\d_]+)*")
_QUOTES = "\"'`\u201c\u201d\u2018\u2019\u00ab\u00bb"
_LEAD = re.compile(
    r"^(?:(?:it|this|(?:the |this )?(?:text|sign|label|button|word|picture|page|screen)) (?:says|reads|spells)"
    r"|(?:the )?(?:text|word|name|title|number|line|headline|first line|last line|second line) is)\s*:?\s*"
)
# Words that may surround a text in a description.
_CARRIERS = set(
    _names(
        "it this there is are says say that reads read with text word words sign label written in on of picture image "
        "shows show shown letters which background"
    )
) | set(COLOUR)


def exact(expected: str, answer: str) -> bool:
    """Check whether the strings are equal without the space around them.

    Args:
        expected: the right answer.
        answer: the model's answer.
    """
    return answer.strip() == expected.strip()


def lenient(rule: str, expected: str, answer: str, others: Sequence[str] = ()) -> bool:
    """Check whether the answer contains the expected one, and no other candidate.

    Args:
        rule: a key of `RULES`, or "choice".
        expected: the right answer.
        answer: the model's answer.
        others: for the rule `choice`, the candidates that are wrong.
    """
    if not answer.strip() or len(words(answer)) > len(words(expected)) + EXTRA_WORDS:
        return False
    if rule == "choice":
        return _choice(expected, answer, others)
    return RULES[rule](expected, answer)


def words(string: str) -> list[str]:
    """Split an answer into words: folded case, no articles or punctuation, number words as digits, one spelling."""
    folded = unicodedata.normalize("NFKC", string).casefold().replace("\u2019", "'")
    folded = re.sub(r"(?<=\d),(?=\d)", ".", folded)
    folded = re.sub(r"\b(\d+)\s*(?:percent|per cent)\b", r"\1", folded)
    matches = [_SPELLINGS.get(word, word) for word in _WORD.findall(folded)]
    return [_DIGITS.get(word, word) for word in matches if word not in _ARTICLES]


def plain_text(string: str) -> str:
    """Remove quotes, case, line breaks, commas, a leading "it says" and trailing punctuation from a text."""
    folded = unicodedata.normalize("NFKC", string).casefold()
    folded = folded.translate({ord(mark): None for mark in _QUOTES})
    folded = " ".join(re.sub(r"[\s,]+", " ", folded).split())
    return _LEAD.sub("", folded).rstrip(" .!?;:")


def _text(expected: str, answer: str) -> bool:
    return plain_text(answer) == plain_text(expected)


def _sequence(expected: str, answer: str) -> bool:
    def signs(string: str) -> str:
        return "".join(letter for letter in plain_text(string) if letter.isalnum())

    return signs(answer) == signs(expected)


def _number(expected: str, answer: str) -> bool:
    def values(string: str) -> set[str]:
        return {word for word in words(string) if word[0].isdigit()}

    return not _is_negated(answer) and values(answer) == values(expected)


def _vocabulary(names: dict[str, str]) -> Callable[[str, str], bool]:
    def compare(expected: str, answer: str) -> bool:
        negated = _is_negated(answer) and names is not YES_NO
        return not negated and _named(names, answer) == _named(names, expected)

    return compare


def _named(names: dict[str, str], string: str) -> set[str]:
    matches = {names[word] for word in words(string) if word in names}
    return matches - {"center"} if len(matches) > 1 and names is PLACE else matches


def _is_negated(string: str) -> bool:
    return any(word in _NEGATIONS for word in words(string))


def _choice(expected: str, answer: str, others: Sequence[str]) -> bool:
    answer_words, expected_words = words(answer), words(expected)
    if _is_negated(answer) and not _is_negated(expected):
        return False
    if not _contains(answer_words, expected_words):
        return False
    for other in (words(other) for other in others):
        is_longer = other != expected_words and _contains(other, expected_words)  # "Save file" where "Save" is right
        if other != expected_words and _contains(
            answer_words if is_longer else _remove_words(answer_words, expected_words), other
        ):
            return False
    return True


def _contains(answer_words: list[str], expected_words: list[str]) -> bool:
    size = len(expected_words)
    return size > 0 and any(
        answer_words[at : at + size] == expected_words for at in range(len(answer_words) - size + 1)
    )


def _remove_words(answer_words: list[str], expected_words: list[str]) -> list[str]:
    """Replace every occurrence of `expected_words` by a mark, so that its parts do not count as other candidates."""
    remaining, at = [], 0
    while at < len(answer_words):
        if answer_words[at : at + len(expected_words)] == expected_words:
            remaining.append("|")
            at += len(expected_words)
        else:
            remaining.append(answer_words[at])
            at += 1
    return remaining


def pairs(string: str) -> set[tuple[str, str]]:
    """Find colour and shape of every shape in a text; the colour is "" if no colour precedes the shape."""
    matches, colour = set(), ""
    for word in words(string):
        if word in COLOUR:
            colour = COLOUR[word]
        elif word in SHAPE:
            matches.add((colour, SHAPE[word]))
            colour = ""
    return matches


def _describe(expected: str, answer: str) -> bool:
    return not _is_negated(answer) and pairs(answer) == pairs(expected) != set()


def _describe_text(expected: str, answer: str) -> bool:
    def content(string: str) -> list[str]:
        carriers = _CARRIERS - set(expected_words)
        return [word for word in words(string) if word not in carriers]

    expected_words = words(expected)
    return content(answer) == expected_words


def _nothing(expected: str, answer: str) -> bool:
    return "nothing" in words(answer)


def _only_know(expected: str, answer: str) -> bool:
    return _contains(words(answer), ["only", "know"])


RULES: dict[str, Callable[[str, str], bool]] = {
    "text": _text,
    "sequence": _sequence,
    "number": _number,
    "colour": _vocabulary(COLOUR),
    "shape": _vocabulary(SHAPE),
    "place": _vocabulary(PLACE),
    "relation": _vocabulary(RELATION),
    "direction": _vocabulary(DIRECTION),
    "growth": _vocabulary(GROWTH),
    "yes_no": _vocabulary(YES_NO),
    "describe": _describe,
    "describe_text": _describe_text,
    "nothing": _nothing,
    "only_know": _only_know,
}
