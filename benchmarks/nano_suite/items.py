"""What the suite consists of: items of one or two turns, each with media and a question.

Media are rendered when they are needed. Called by all modules that write questions.
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
    """A question and how its answer is compared.

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
    """Media that are shown with a question."""

    question: Question
    media: tuple[Medium, ...] = ()


@dataclass(frozen=True)
class Item:
    """One conversation of one or two turns; its last turn is the one that is scored."""

    kind: str
    number: int
    turns: tuple[Turn, ...]


def generators(kind: str, number: int) -> tuple[Random, int]:
    """The generator of an item's content, and the seed for what is rendered.

    They are separate, so that the questions do not depend on the metrics of fonts.
    """
    rng = Random(f"{SEED}/{kind}/{number}")
    return rng, rng.getrandbits(32)


def picture(render: Callable[[], Canvas | Photograph]) -> Medium:
    """A picture from a function that renders it."""
    return Medium("image", lambda: [render()])


def single(kind: str, number: int, medium: Medium, question: Question) -> Item:
    """An item of one turn with one medium."""
    return Item(kind, number, (Turn(question, (medium,)),))
