"""The parts of the suite: items of one or two turns, each with media and a question.

Media are rendered when they are needed. Called by all modules that build questions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Literal

from benchmarks.nano_suite.canvas import Canvas
from benchmarks.nano_suite.photographs import Photograph

SEED = "nano suite 1"
FPS = 2.0


@dataclass(frozen=True)
class Medium:
    """A picture, or a clip with `FPS` frames a second.

    Attributes:
        kind: "image" or "video".
        render: returns one canvas, or one for each frame.
    """

    kind: Literal["image", "video"]
    render: Callable[[], Sequence[Canvas | Photograph]] = field(repr=False)


@dataclass(frozen=True)
class Question:
    """A question and the rule that compares answers.

    Attributes:
        text: the question.
        expected: the right answer.
        rule: a key of `matching.RULES`, or "choice".
        others: for the rule "choice", the candidates that are wrong.
    """

    text: str
    expected: str
    rule: str
    others: tuple[str, ...] = ()


@dataclass(frozen=True)
class Turn:
    """A question and the media sent with it.

    Attributes:
        question: the question.
        media: pictures and clips, in order.
    """

    question: Question
    media: tuple[Medium, ...] = ()


@dataclass(frozen=True)
class Item:
    """One conversation of one or two turns, of which the last is scored.

    Attributes:
        kind: a key of `suite.BUILDERS`, or another name in measurements outside the suite.
        number: number of the item within its kind.
        turns: the turns.
    """

    kind: str
    number: int
    turns: tuple[Turn, ...]


def generators(kind: str, number: int) -> tuple[Random, int]:
    """Build the generator of an item's content, and choose the seed of its rendering.

    The two are separate, so that the questions do not depend on the metrics of fonts.

    Args:
        kind: kind of the item.
        number: number of the item within its kind.
    """
    rng = Random(f"{SEED}/{kind}/{number}")
    return rng, rng.getrandbits(32)


def picture(render: Callable[[], Canvas | Photograph]) -> Medium:
    """Build a picture from a function that renders it."""
    return Medium("image", lambda: [render()])


def single(kind: str, number: int, medium: Medium, question: Question) -> Item:
    """Build an item of one turn with one medium.

    Args:
        kind: kind of the item.
        number: number of the item within its kind.
        medium: the medium.
        question: the question.
    """
    return Item(kind, number, (Turn(question, (medium,)),))
