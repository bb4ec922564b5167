"""Wording of questions and answers: whole sentences, articles, lists, plurals.

Sentences are exactly determined, because answers are compared as text. Called by all task modules.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pvc.lab.synthetic.seeding import Rng

SENTENCE_PROBABILITY = 0.15  # of a question that asks for a sentence
_SENTENCE_REQUESTS = ("Answer in a sentence.", "Answer with a whole sentence.", "Reply in one sentence.")


def phrase(rng: Rng, question: str, answer: str, sentence: str) -> tuple[str, str]:
    """Return a question with its short answer or, sometimes, with a request for a sentence and the sentence.

    Args:
        rng: random generator of the sample.
        question: the question.
        answer: the short answer.
        sentence: the answer as a sentence.
    """
    if not rng.chance(SENTENCE_PROBABILITY):
        return question, answer
    return f"{question} {rng.choice(_SENTENCE_REQUESTS)}", capitalise(sentence)


def is_sentence_request(question: str) -> bool:
    """Return whether `phrase` has added the request for a sentence."""
    return question.endswith(_SENTENCE_REQUESTS)


def remove_sentence_request(question: str) -> str:
    """Return a question without the request for a sentence. Two questions are the same if these are equal."""
    for tail in _SENTENCE_REQUESTS:
        question = question.removesuffix(f" {tail}")
    return question


def select_distinct(
    first_question: str, candidates: Iterable[tuple[str, str]], max_count: int, rng: Rng
) -> tuple[tuple[str, str], ...]:
    """Select further questions in random order, all different from the first and from each other.

    Args:
        first_question: the first question of the sample.
        candidates: questions with their answers.
        max_count: maximum number of questions.
        rng: random generator of the sample.
    """
    known, pairs = {_normalise(first_question)}, []
    for question, answer in candidates:
        if _normalise(question) not in known:
            known.add(_normalise(question))
            pairs.append((question, answer))
    return tuple(rng.sample(pairs, min(max_count, len(pairs))))


def _normalise(question: str) -> str:
    return remove_sentence_request(question).replace("colour", "color").lower()


def capitalise(sentence: str) -> str:
    """Return a sentence with a capital first letter. The rest stays, because it may quote a text."""
    return sentence[:1].upper() + sentence[1:]


def add_article(thing: str) -> str:
    """Return a thing with its article: "an orange circle", "a red star"."""
    return f"{'an' if thing[0] in 'aeiou' else 'a'} {thing}"


def join_names(things: Sequence[str]) -> str:
    """Return a list in words: "a", "a and b", "a, b and c"."""
    return things[0] if len(things) == 1 else f"{', '.join(things[:-1])} and {things[-1]}"


_NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")


def spell_number(number: int) -> str:
    """Return "no", "one" to "twelve", then digits: for sentences, because short answers use digits."""
    return _NUMBERS[number] if number < len(_NUMBERS) else str(number)
