"""Words around answers: sentences instead of single words now and then, articles, lists, plurals.

It leaves out what is asked (the task modules). Sentences are exactly determined, since answers are compared as text.
Used by all task modules.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pvc.lab.synthetic.seeding import Rng

SENTENCES = 0.15  # part of the questions that ask for a sentence
_IN_A_SENTENCE = ("Answer in a sentence.", "Answer with a whole sentence.", "Reply in one sentence.")


def phrase(dice: Rng, question: str, answer: str, sentence: str) -> tuple[str, str]:
    """The question and its short answer or, now and then, the question for a sentence and that sentence."""
    if not dice.chance(SENTENCES):
        return question, answer
    return f"{question} {dice.choice(_IN_A_SENTENCE)}", capitalised(sentence)


def asks_for_a_sentence(question: str) -> bool:
    """Whether `phrase` has asked for a sentence."""
    return question.endswith(_IN_A_SENTENCE)


def without_sentence(question: str) -> str:
    """The question without the wish for a sentence: two questions are the same if these are."""
    for tail in _IN_A_SENTENCE:
        question = question.removesuffix(f" {tail}")
    return question


def distinct(asked: str, candidates: Iterable[tuple[str, str]], most: int, dice: Rng) -> tuple[tuple[str, str], ...]:
    """At most `most` further questions in random order: none is the one that was asked, none comes twice."""
    seen, kept = {_plain(asked)}, []
    for question, answer in candidates:
        if _plain(question) not in seen:
            seen.add(_plain(question))
            kept.append((question, answer))
    return tuple(dice.sample(kept, min(most, len(kept))))


def _plain(question: str) -> str:
    return without_sentence(question).replace("colour", "color").lower()


def capitalised(sentence: str) -> str:
    """The sentence with a capital first letter; the rest stays, since it may quote a text."""
    return sentence[:1].upper() + sentence[1:]


def with_article(thing: str) -> str:
    """ "an orange circle", "a red star"."""
    return f"{'an' if thing[0] in 'aeiou' else 'a'} {thing}"


def listed(things: Sequence[str]) -> str:
    """ "a", "a and b", "a, b and c"."""
    return things[0] if len(things) == 1 else f"{', '.join(things[:-1])} and {things[-1]}"


_NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")


def number_word(number: int) -> str:
    """ "no", "one" to "twelve", then digits: for sentences, where short answers use digits."""
    return _NUMBERS[number] if number < len(_NUMBERS) else str(number)
